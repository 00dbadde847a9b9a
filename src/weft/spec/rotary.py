"""Position descriptions: rotary with its scalings, learned and sinusoidal tables, relative bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weft.core.errors import ConfigError


@dataclass(frozen=True)
class RotaryScaling:
    """How rotary frequencies are stretched beyond the trained length.

    Attributes:
        kind: The rule. "linear" divides all (arXiv:2306.15595); "ntk" raises the base once;
            "dynamic" raises it with the sequence length; "yarn" divides long wavelengths and
            sharpens the softmax (arXiv:2309.00071); "llama3" blends by wavelength; "longrope" has
            one searched factor per pair (arXiv:2402.13753).
        factor: How much longer the new context is.
        low_freq_factor: Wavelengths above original_context / this are divided by factor (llama3).
        high_freq_factor: Wavelengths below original_context / this are kept (llama3).
        original_context: The length the model was first trained with.
        beta_fast: Pairs that turn more often than this over original_context are kept (yarn).
        beta_slow: Pairs that turn less often than this are divided by factor (yarn).
        mscale: Numerator of the attention factor (yarn, DeepSeek).
        mscale_all_dim: Its denominator, and the factor on the softmax scale (yarn, DeepSeek).
        attention_factor: Multiplies cosines and sines; none means the rule's own formula.
        truncate: Round the blend's ends to whole pairs (yarn).
        short_factors: One divisor per pair up to original_context (longrope).
        long_factors: One divisor per pair beyond it (longrope).
    """

    kind: Literal["linear", "ntk", "dynamic", "yarn", "llama3", "longrope"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    truncate: bool = True
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()


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
