"""What a forward pass is asked to do, and how it is cut over devices and stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from weft.core.errors import ConfigError
from weft.plan.ops import ELEMENT_BYTES


class Segment(NamedTuple):
    """Equal sequences: ``new`` tokens each, computed on top of ``cached`` ones.

    Attributes:
        new: Tokens computed.
        cached: Tokens whose keys and values are there already.
        count: Sequences like this.
    """

    new: int
    cached: int = 0
    count: int = 1


@dataclass(frozen=True)
class Work:
    """One forward pass over a batch of sequences.

    Attributes:
        segments: The sequences, equal ones together.
        causal: Count only pairs a causal mask keeps.
        num_logits: Tokens projected to the vocabulary; none means all.
    """

    segments: tuple[Segment, ...]
    causal: bool = True
    num_logits: int | None = None

    def __post_init__(self) -> None:
        for segment in self.segments:
            if segment.new < 1 or segment.cached < 0 or segment.count < 0:
                raise ConfigError(f"{segment} is no work", fix="compute at least one new token")

    @classmethod
    def train(cls, batch: int, length: int) -> Work:
        """Return a training pass: every token is scored."""
        return cls((Segment(length, 0, batch),))

    @classmethod
    def prefill(cls, batch: int, new: int, cached: int = 0) -> Work:
        """Return a prefill: one distribution per sequence is needed."""
        return cls((Segment(new, cached, batch),), num_logits=batch)

    @classmethod
    def decode(cls, batch: int, context: int) -> Work:
        """Return one decode step; ``context`` counts the new token."""
        return cls((Segment(1, max(0, context - 1), batch),), num_logits=batch)

    @property
    def num_tokens(self) -> int:
        return sum(segment.new * segment.count for segment in self.segments)

    @property
    def num_sequences(self) -> int:
        return sum(segment.count for segment in self.segments)

    @property
    def logits(self) -> int:
        """Tokens projected to the vocabulary."""
        return self.num_tokens if self.num_logits is None else self.num_logits

    def pairs(self, window: int | None = None) -> float:
        """Return (query, key) pairs per head.

        >>> Work.train(1, 4).pairs(), Work.train(1, 4).pairs(window=2), Work.decode(3, 5).pairs()
        (10.0, 7.0, 15.0)
        """
        return float(sum(self._pairs(segment, window) * segment.count for segment in self.segments))

    def context_tokens(self, window: int | None = None) -> int:
        """Return cached and new tokens that are read at least once."""
        total = 0
        for new, cached, count in self.segments:
            reach = cached if window is None else min(cached, window)
            total += (reach + new) * count
        return total

    def _pairs(self, segment: Segment, window: int | None) -> float:
        new, cached, _ = segment
        if not self.causal:
            return new * (new + cached)
        full = new * cached + new * (new + 1) / 2
        if window is None or new + cached <= window:
            return full
        short = max(0, window - cached)  # queries that still see everything
        seen = short * cached + short * (short + 1) / 2
        return seen + (new - short) * window


@dataclass(frozen=True)
class Shard:
    """How one layer is cut.

    Attributes:
        tensor: Devices that share each matrix.
        expert: Devices that share the experts.
        context: Devices that share each sequence.
        sequence: Norms and residuals are cut by ``tensor`` too (Korthikanti et al. 2022).
        expert_tensor: Devices that share each expert's matrices; none means ``tensor``.
    """

    tensor: int = 1
    expert: int = 1
    context: int = 1
    sequence: bool = True
    expert_tensor: int | None = None

    def __post_init__(self) -> None:
        if min(self.tensor, self.expert, self.context) < 1:
            raise ConfigError(f"{self}: every size must be at least 1")

    @property
    def within_expert(self) -> int:
        """Devices that share one expert's matrices."""
        if self.expert_tensor is not None:
            return self.expert_tensor
        return self.tensor if self.expert == 1 else 1


@dataclass(frozen=True)
class Dtypes:
    """Element types, as keys of ``ELEMENT_BYTES``.

    Attributes:
        compute: Of matrix products.
        weights: In memory; none means ``compute``.
        activations: Between kernels.
        kv: Of the cache.
        head: Of the output projection, which is often left in bfloat16.
    """

    compute: str = "bfloat16"
    weights: str | None = None
    activations: str = "bfloat16"
    kv: str = "bfloat16"
    head: str = "bfloat16"

    @property
    def weight_bytes(self) -> float:
        """Bytes per number of weights."""
        return ELEMENT_BYTES[self.weights or self.compute]

    @property
    def activation_bytes(self) -> float:
        """Bytes per number between kernels."""
        return ELEMENT_BYTES[self.activations]

    @property
    def kv_bytes(self) -> float:
        """Bytes per cached number."""
        return ELEMENT_BYTES[self.kv]
