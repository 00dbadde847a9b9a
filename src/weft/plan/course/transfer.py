"""Moving keys and values over a wire against computing them again (InfraTech).

Per layer, with 0.7 of the wire and 0.5 of the peak reached. Slips put right by ``strict``: 2⁴⁰
FLOP set against 10¹² FLOP/s, GiB against GB/s, the key-value projection charged for cached tokens,
and the causal half taken of a single query's pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weft.plan.course.latent import prefill_attention

Attention = Literal["mla", "gqa"]
WIRE_SHARE, COMPUTE_SHARE = 0.7, 0.5
# Qwen3-235B-A22B: width, query heads, key-value heads, head width.
GQA_DIM, GQA_HEADS, GQA_KV_HEADS, GQA_HEAD_DIM = 4096, 64, 4, 128
MLA_VALUES = 576


@dataclass(frozen=True)
class Transfer:
    """One comparison.

    Attributes:
        attention: DeepSeek-V3's latent attention or Qwen3-235B's grouped queries.
        peak_tflops: Of the device, in 10¹² FLOP/s.
        strict: SI units, and only what caching saves.
    """

    attention: Attention
    peak_tflops: float
    strict: bool = False

    def transfer_ms(self, num_tokens: int, gb_per_s: float) -> float:
        """Return milliseconds to move one layer's cache."""
        values = MLA_VALUES if self.attention == "mla" else 2 * GQA_KV_HEADS * GQA_HEAD_DIM
        unit = 1e9 if self.strict else 2.0**30
        return 1e3 * 2 * num_tokens * values / unit / (gb_per_s * WIRE_SHARE)

    def recompute_ms(self, num_tokens: int) -> float:
        """Return milliseconds to compute one layer's attention again.

        What the cache saves, except that the course plots the whole prefill for grouped queries.
        """
        flops = self._flops(num_tokens, 0)
        if self.strict:
            # The step for the last token is needed either way; its products do not grow.
            flops -= self._flops(1, 0)
        elif self.attention == "mla":
            flops -= self._flops(1, num_tokens)
        unit = 1e12 if self.strict else 2.0**40
        return 1e3 * flops / unit / (self.peak_tflops * COMPUTE_SHARE)

    def crossover_tokens(self, gb_per_s: float, *, limit: int = 1 << 20) -> int:
        """Return the least number of tokens at which computing again takes longer.

        Raises:
            ValueError: not below ``limit``.
        """
        low, high = 1, limit
        if not self._slower(high, gb_per_s):
            raise ValueError(f"transfer is slower up to {limit} tokens")
        while low < high:
            middle = (low + high) // 2
            if self._slower(middle, gb_per_s):
                high = middle
            else:
                low = middle + 1
        return low

    def _slower(self, num_tokens: int, gb_per_s: float) -> bool:
        return self.recompute_ms(num_tokens) >= self.transfer_ms(num_tokens, gb_per_s)

    def _flops(self, new: int, cached: int) -> float:
        if self.attention == "mla":
            return prefill_attention(new, cached).total
        context, width = new + cached, GQA_HEADS * GQA_HEAD_DIM
        projected = new if self.strict else context
        query_and_output = 4 * new * GQA_DIM * width
        kv = 4 * projected * GQA_DIM * GQA_KV_HEADS * GQA_HEAD_DIM
        return query_and_output + kv + 4 * width * new * context / 2
