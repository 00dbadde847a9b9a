"""Multi-head latent attention and its sparse selection, described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from weft.core.errors import ConfigError
from weft.spec.cache import CacheKinds
from weft.spec.rotary import RotarySpec, yarn_mscale


@dataclass(frozen=True)
class IndexerSpec:
    """The lightning indexer of DeepSeek Sparse Attention (DeepSeek-V3.2-Exp report, 2025).

    Each query attends to the ``top_k`` positions with the largest index score.

    Attributes:
        num_heads: Index query heads.
        head_dim: Width of an index head; all share one index key per token.
        top_k: Positions each query keeps.
        rotary_layout: How the first ``rope_head_dim`` dimensions of index queries and keys pair
            up: "half" in DeepSeek-V3.2, "interleaved" in GLM-5.
    """

    num_heads: int
    head_dim: int
    top_k: int
    rotary_layout: Literal["half", "interleaved"] = "half"

    def __post_init__(self) -> None:
        if min(self.num_heads, self.head_dim, self.top_k) < 1:
            raise ConfigError(f"an indexer needs positive sizes: {self}")


@dataclass(frozen=True)
class MLASpec(CacheKinds):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434).

    Keys and values of all heads are linear maps of one latent vector per token, which is all the
    cache holds, beside one rotated key part shared by the heads.

    Attributes:
        num_heads: Heads (N).
        kv_latent_dim: Width of the cached latent (C).
        nope_head_dim: Width of a query-key head without position (P).
        rope_head_dim: Width of the rotated part (R).
        value_head_dim: Width of a value head (V).
        query_latent_dim: Width of the query's latent; none projects queries directly.
        rotary: Positions of the rotated part.
        bias: Whether the down and output projections have a bias.
        scale: Factor on the scores; none means (P + R) ** -0.5, times the square of YaRN's
            sharpening where ``rotary`` gives one.
        latent_norm_eps: Of the norms of both latents; none means the model's.
        indexer: Sparse selection of positions; none attends to all.
        output_gate: Multiply the result by a sigmoid of the input (gated MLA).
    """

    num_heads: int
    kv_latent_dim: int
    nope_head_dim: int
    rope_head_dim: int
    value_head_dim: int
    query_latent_dim: int | None = None
    rotary: RotarySpec | None = field(default_factory=RotarySpec)
    bias: bool = False
    scale: float | None = None
    latent_norm_eps: float | None = None
    indexer: IndexerSpec | None = None
    output_gate: bool = False

    def __post_init__(self) -> None:
        sizes = (self.num_heads, self.kv_latent_dim, self.nope_head_dim, self.value_head_dim)
        if min(sizes) < 1 or self.rope_head_dim < 0 or self.rope_head_dim % 2:
            raise ConfigError(f"latent attention needs positive sizes, an even rope width: {self}")
        if self.indexer is None:
            return
        if self.query_latent_dim is None or self.indexer.head_dim < self.rope_head_dim:
            raise ConfigError(
                "an indexer reads the query latent and rotates rope_head_dim of its dimensions",
                fix="set query_latent_dim, and an index head_dim of at least rope_head_dim",
            )

    @property
    def head_dim(self) -> int:
        """Width of a query-key head, without and with position together."""
        return self.nope_head_dim + self.rope_head_dim

    @property
    def softmax_scale(self) -> float:
        """The factor on query-key products."""
        if self.scale is not None:
            return self.scale
        scaling = None if self.rotary is None else self.rotary.scaling
        if scaling is None or not scaling.mscale_all_dim:
            return self.head_dim**-0.5
        return self.head_dim**-0.5 * yarn_mscale(scaling.factor, scaling.mscale_all_dim) ** 2

    @property
    def down_rows(self) -> tuple[int, ...]:
        """Rows of the parts of the merged projection: query latent, latent, rotated key."""
        latent = (self.kv_latent_dim, self.rope_head_dim)
        return latent if self.query_latent_dim is None else (self.query_latent_dim, *latent)

    @property
    def token_cache(self) -> Mapping[str, tuple[int, ...]]:
        """The latent with the rotated key behind it, and the index key."""
        cache: dict[str, tuple[int, ...]] = {"latent": (self.kv_latent_dim + self.rope_head_dim,)}
        if self.indexer is not None:
            cache["index_keys"] = (self.indexer.head_dim,)
        return cache

    @property
    def rotated_cache(self) -> Mapping[str, int]:
        """The rotated key behind the latent."""
        return {"latent": self.rope_head_dim}
