"""The FLOPs of a DeepSeek-V3 training step (mfu_calculation; arXiv:2412.19437).

Slips of the course, put right by ``strict``: keys are expanded to 192 per head where the model
expands to 128 (the rotated 64 are shared), two multi-token modules where the model has one, and
the module's projection counted three times. Every (query, key) pair counts either way.
"""

from __future__ import annotations

from dataclasses import dataclass

DIM, VOCAB, HEADS = 7168, 129_280, 128
QUERY_RANK, KV_RANK, NOPE, ROPE, VALUE = 1536, 512, 128, 64, 128
NUM_LAYERS, NUM_DENSE, EXPERTS, TOP_K, SHARED = 61, 3, 256, 8, 1
FFN_DIM, EXPERT_DIM = 18_432, 2048


@dataclass(frozen=True)
class DeepSeekStep:
    """Forward FLOPs of the parts of one step, and the training total.

    Attributes:
        num_tokens: Tokens of the step.
        length: Tokens of a sequence.
        strict: Count what the model computes.
        num_mtp: Multi-token modules; none means two, or one in strict mode.
    """

    num_tokens: int = 1024 * 4096
    length: int = 4096
    strict: bool = False
    num_mtp: int | None = None

    @property
    def attention(self) -> int:
        """One latent-attention layer.

        >>> DeepSeekStep().attention
        3012112104292352
        """
        key = NOPE if self.strict else NOPE + ROPE
        weights = QUERY_RANK * (DIM + HEADS * (NOPE + ROPE)) + DIM * (KV_RANK + ROPE)
        weights += KV_RANK * HEADS * (key + VALUE) + HEADS * VALUE * DIM
        pairs = self.length * HEADS * (NOPE + ROPE + VALUE)
        return 2 * self.num_tokens * (weights + pairs)

    @property
    def experts(self) -> int:
        """One mixture layer with its router.

        >>> DeepSeekStep().experts
        3340316325183488
        """
        weights = 3 * DIM * EXPERT_DIM * (SHARED + TOP_K) + DIM * EXPERTS
        return 2 * self.num_tokens * weights

    @property
    def dense(self) -> int:
        """One dense feed-forward part."""
        return 2 * self.num_tokens * 3 * DIM * FFN_DIM

    @property
    def head(self) -> int:
        """The output projection."""
        return 2 * self.num_tokens * DIM * VOCAB

    @property
    def main(self) -> int:
        """Forward and backward of the model without multi-token modules."""
        mixture = NUM_LAYERS - NUM_DENSE
        layers = NUM_LAYERS * self.attention + mixture * self.experts + NUM_DENSE * self.dense
        return 3 * (self.head + layers)

    @property
    def mtp(self) -> int:
        """Forward and backward of one multi-token module."""
        projection = 2 * self.num_tokens * DIM * 2 * DIM * (1 if self.strict else 3)
        return 3 * (self.head + self.attention + self.experts + projection)

    @property
    def total(self) -> int:
        """Forward and backward of everything."""
        modules = (1 if self.strict else 2) if self.num_mtp is None else self.num_mtp
        return self.main + modules * self.mtp

    def mfu(self, step_s: float, num_devices: int, peak_tflops: float) -> float:
        """Return model FLOPs over peak.

        >>> DeepSeekStep().mfu(21.0, 512, 354)
        0.3378555947736949
        """
        return self.total / (num_devices * step_s * 1e12) / peak_tflops


def published_mfu(*, causal: bool, tokens: float = 14.8e12, device_hours: float = 2.664e6) -> float:
    """Return the MFU of the published pre-training run on H800, without multi-token modules.

    Args:
        causal: Count half of all pairs.
        tokens: Of the run.
        device_hours: Of the run.

    >>> round(100 * published_mfu(causal=False), 2), round(100 * published_mfu(causal=True), 2)
    (43.87, 39.08)
    """
    step = DeepSeekStep(num_tokens=1, strict=True, num_mtp=0)
    flops = float(step.total)
    if causal:
        flops -= 3 * NUM_LAYERS * step.length * HEADS * (NOPE + ROPE + VALUE)
    return flops * tokens / (device_hours * 3600 * 989e12)
