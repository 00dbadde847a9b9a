"""Softmax attention, described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from weft.core.errors import ConfigError
from weft.spec.cache import CacheKinds
from weft.spec.rotary import RelativeBiasSpec, RotarySpec

QKNorm = Literal["none", "head", "all_heads"]


@dataclass(frozen=True)
class AttentionSpec(CacheKinds):
    """Softmax attention: multi-head, multi-query or grouped-query.

    Attributes:
        num_heads: Query heads (N).
        num_kv_heads: Key and value heads (K); divides num_heads.
        head_dim: Width of one head (H).
        rotary: Rotary positions, or none.
        qkv_bias: Whether the query, key and value projections have a bias.
        out_bias: Whether the output projection has a bias.
        qk_norm: Normalise queries and keys before the rotation: "head" each head alone (Qwen3),
            "all_heads" all heads as one vector (OLMo-2, MiniMax-M2).
        window: A token sees this many positions including itself, and as many later ones where it
            is not causal; none means all.
        scale: Factor on the scores; none means head_dim ** -0.5.
        softcap: Scores become softcap * tanh(score / softcap) (Gemma 2).
        sinks: A trained score per head joins the softmax and takes no value (gpt-oss).
        output_gate: Multiply the result by a sigmoid of the input before the output projection
            (Qwen3-Next); the query projection then makes query and gate, head by head.
        alibi: Scores fall linearly with distance, by a slope per head (arXiv:2108.12409).
        alibi_stretch: How many times longer than trained sequences may get: far-looking heads get
            gentler slopes.
        causal: Tokens see earlier positions only; false in encoders.
        relative: Trained bias by distance; the stack holds its table.
        kv_source: Layer whose keys and values are used in place of own ones (cross-layer sharing,
            arXiv:2405.12981); none means own.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary: RotarySpec | None = field(default_factory=RotarySpec)
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: QKNorm = "none"
    window: int | None = None
    scale: float | None = None
    softcap: float | None = None
    sinks: bool = False
    output_gate: bool = False
    alibi: bool = False
    alibi_stretch: float = 1.0
    causal: bool = True
    relative: RelativeBiasSpec | None = None
    kv_source: int | None = None

    def __post_init__(self) -> None:
        if min(self.num_heads, self.num_kv_heads, self.head_dim) < 1:
            raise ConfigError(f"attention sizes must be at least 1: {self}")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"{self.num_heads} query heads cannot share {self.num_kv_heads} key-value heads",
                fix="make num_heads a multiple of num_kv_heads",
            )
        if self.rotary is not None and self.rotary_dim % 2:
            raise ConfigError(
                f"rotary positions need an even width, not {self.rotary_dim}",
                fix="choose an even head_dim",
            )
        if self.rotary_dim > self.head_dim:
            raise ConfigError(f"{self.rotary_dim} dimensions of {self.head_dim} cannot rotate")
        if self.window is not None and self.window < 1:
            raise ConfigError(f"window is {self.window}; it must be at least 1 or none")
        if self.alibi_stretch < 1.0:
            raise ConfigError(f"alibi_stretch is {self.alibi_stretch}; it must be at least 1")
        if self.softcap is not None and self.softcap <= 0.0:
            raise ConfigError(f"softcap is {self.softcap}; it must be above 0 or none")

    @property
    def query_dim(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key heads together (the value heads have the same)."""
        return self.num_kv_heads * self.head_dim

    @property
    def rotary_dim(self) -> int:
        """How many dimensions of a head rotate."""
        if self.rotary is None:
            return 0
        return self.head_dim if self.rotary.dim is None else self.rotary.dim

    @property
    def softmax_scale(self) -> float:
        """The factor on query-key products."""
        return self.head_dim**-0.5 if self.scale is None else self.scale

    @property
    def qkv_rows(self) -> tuple[int, ...]:
        """Rows of the parts of the merged projection: query (and gate), key, value."""
        query = self.query_dim * (2 if self.output_gate else 1)
        return (query,) if self.kv_source is not None else (query, self.kv_dim, self.kv_dim)

    @property
    def token_cache(self) -> Mapping[str, tuple[int, ...]]:
        """Keys and values of the key-value heads; none of its own where a layer shares."""
        if self.kv_source is not None:
            return {}
        shape = (self.num_kv_heads, self.head_dim)
        return {"keys": shape, "values": shape}
