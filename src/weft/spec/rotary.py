"""Position descriptions: rotary with its scalings, learned and sinusoidal tables, relative bias."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from weft.core.errors import ConfigError


@dataclass(frozen=True)
class RotaryScaling:
    """How rotary frequencies are stretched beyond the trained length.

    Attributes:
        kind: The rule. "linear" divides all (arXiv:2306.15595); "ntk" raises the base once;
            "dynamic" raises it for the length in ``context``; "yarn" divides long wavelengths and
            sharpens the softmax (arXiv:2309.00071); "llama3" blends by wavelength; "longrope" has
            one searched factor per pair (arXiv:2402.13753).
        factor: How much longer the new context is.
        low_freq_factor: Wavelengths above original_context / this are divided by factor (llama3).
        high_freq_factor: Wavelengths below original_context / this are kept (llama3).
        original_context: The length the model was first trained with.
        context: The longest sequence the model shall meet. "dynamic" and "longrope" choose their
            frequencies by it, once for all tokens; none means original_context.
        beta_fast: Pairs that turn more often than this over original_context are kept (yarn).
        beta_slow: Pairs that turn less often than this are divided by factor (yarn).
        mscale: Numerator of the attention factor (yarn, DeepSeek).
        mscale_all_dim: Its denominator, and the factor on the softmax scale (yarn, DeepSeek).
        attention_factor: Multiplies cosines and sines; none means the rule's own formula.
        truncate: Round the blend's ends to whole pairs (yarn).
        short_factors: One divisor per pair up to original_context (longrope).
        long_factors: One divisor per pair beyond it (longrope).

    Others change the frequencies of "dynamic" and "longrope" with the longest sequence of the
    batch. Here a token's rotation never depends on its neighbours, nor on how far its own
    sequence will grow: cached keys would be rotated otherwise than new ones. Both agree for
    sequences as long as ``context`` promises, and for all where it promises no stretching.
    """

    kind: Literal["linear", "ntk", "dynamic", "yarn", "llama3", "longrope"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192
    context: int | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    truncate: bool = True
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()

    @property
    def is_stretched(self) -> bool:
        """Whether longer sequences than the trained ones are meant."""
        return self.context is not None and self.context > self.original_context

    @property
    def table_factor(self) -> float:
        """What multiplies cosines and sines, and so the scores by its square."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.kind == "yarn":
            if self.mscale and self.mscale_all_dim:
                above = yarn_mscale(self.factor, self.mscale)
                return above / yarn_mscale(self.factor, self.mscale_all_dim)
            return yarn_mscale(self.factor)
        if self.kind == "longrope" and self.factor > 1.0:
            return math.sqrt(1.0 + math.log(self.factor) / math.log(self.original_context))
        return 1.0


def yarn_mscale(factor: float, mscale: float = 1.0) -> float:
    """Return the temperature of YaRN, ``0.1 m ln(factor) + 1`` (arXiv:2309.00071, eq. 22).

    >>> round(yarn_mscale(40.0), 4)
    1.3689
    """
    return 1.0 if factor <= 1.0 else 0.1 * mscale * math.log(factor) + 1.0


@dataclass(frozen=True)
class RotarySpec:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864).

    Attributes:
        theta: The base of the geometric series of wavelengths.
        dim: How many of a head's dimensions rotate; none means all of them.
        layout: "half" pairs dimension i with i + dim/2 (Llama on Hugging Face), "interleaved"
            pairs 2i with 2i + 1 (the paper).
        scaling: Stretching beyond the trained length.
        sections: Pairs that follow each axis of a multi-axis position (M-RoPE,
            arXiv:2409.12191); none means one axis.
        interleaved_sections: The axes alternate from pair to pair instead of in blocks (Qwen3-VL).
    """

    theta: float = 10_000.0
    dim: int | None = None
    layout: Literal["half", "interleaved"] = "half"
    scaling: RotaryScaling | None = None
    sections: tuple[int, ...] | None = None
    interleaved_sections: bool = False

    def axes(self, num_pairs: int) -> tuple[int, ...]:
        """Return the axis of the position that each pair follows.

        >>> RotarySpec(sections=(2, 1, 1)).axes(4)
        (0, 0, 1, 2)
        >>> RotarySpec(sections=(2, 1, 1), interleaved_sections=True).axes(4)
        (0, 1, 2, 0)
        """
        if self.sections is None:
            return (0,) * num_pairs
        if sum(self.sections) != num_pairs:
            raise ConfigError(
                f"rotary sections {self.sections} share out {sum(self.sections)} pairs, "
                f"the head has {num_pairs}"
            )
        if self.interleaved_sections:
            num_axes = len(self.sections)
            axes = [pair % num_axes for pair in range(num_pairs)]
            ends = [num_axes * size for size in self.sections]
            return tuple(a if r < ends[a] else 0 for r, a in enumerate(axes))
        return tuple(axis for axis, size in enumerate(self.sections) for _ in range(size))


@dataclass(frozen=True)
class LearnedPositions:
    """One trained vector per position, added to the embedding (GPT-2, BERT).

    Attributes:
        num_positions: Rows of the table.
    """

    num_positions: int


@dataclass(frozen=True)
class SinusoidalPositions:
    """Sines and cosines of geometric wavelengths, added to the embedding (arXiv:1706.03762).

    Attributes:
        theta: The base of the wavelengths.
    """

    theta: float = 10_000.0


PositionSpec = LearnedPositions | SinusoidalPositions


@dataclass(frozen=True)
class RelativeBiasSpec:
    """A trained bias per head and bucket of distances, shared by a stack (T5, arXiv:1910.10683).

    Attributes:
        num_buckets: Rows of the table; half of them count exactly, the rest logarithmically.
        max_distance: Distances beyond it share the last bucket.
    """

    num_buckets: int = 32
    max_distance: int = 128

    def __post_init__(self) -> None:
        if self.num_buckets < 2 or self.max_distance < 1:
            raise ConfigError(
                f"relative bias needs 2 buckets and a distance of 1; got {self.num_buckets}, "
                f"{self.max_distance}"
            )
