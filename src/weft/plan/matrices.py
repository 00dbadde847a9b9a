"""The weight matrices of one layer and how tensor parallelism cuts them.

Kernels and resident weights are both read from this list, so a device's memory and its work
cannot disagree. Norm weights and biases, below 0.1 % of a model, are not matrices and not here;
``weft.plan.parameters`` counts everything exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from weft.plan.work import Shard
from weft.spec import (
    AttentionSpec,
    ChannelMixSpec,
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    LayerSpec,
    LinearAttentionSpec,
    Mamba2Spec,
    MambaSpec,
    MatrixRWKVSpec,
    MLASpec,
    MLPSpec,
    MoESpec,
    RWKVSpec,
    ShortConvSpec,
)

Cut = Literal["columns", "rows", "none"]


@dataclass(frozen=True)
class Matrix:
    """One matrix, or one per expert.

    Attributes:
        name: What it computes.
        inner: Rows of the weight: what it contracts.
        columns: Columns of the weight: what it makes.
        cut: Which of both tensor parallelism divides.
        num_experts: Copies, one per expert; 0 for a dense matrix.
        top_k: Experts each token uses.
        branch: Of which half of the layer it is a part.
    """

    name: str
    inner: int
    columns: int
    cut: Cut = "none"
    num_experts: int = 0
    top_k: int = 0
    branch: Literal["mixer", "ffn"] = "mixer"

    @property
    def weights(self) -> int:
        """Numbers over all devices."""
        return self.inner * self.columns * max(1, self.num_experts)

    def local(self, shard: Shard) -> tuple[float, float]:
        """Return inner width and columns on one device."""
        parts = shard.within_expert if self.num_experts else shard.tensor
        if self.cut == "columns":
            return self.inner, self.columns / parts
        return (
            (self.inner / parts, self.columns) if self.cut == "rows" else (self.inner, self.columns)
        )

    def local_weights(self, shard: Shard) -> float:
        """Return numbers on one device."""
        inner, columns = self.local(shard)
        return inner * columns * (self.num_experts / shard.expert if self.num_experts else 1)


@lru_cache(maxsize=4096)
def layer_matrices(layer: LayerSpec, dim: int, num_kv_shards: int = 1) -> tuple[Matrix, ...]:
    """Return the matrices of a layer.

    Args:
        layer: The layer.
        dim: Width of the residual stream.
        num_kv_shards: Tensor-parallel size; key-value heads are copied beyond their number.
    """
    ffn = () if layer.ffn is None else tuple(_ffn(layer.ffn, dim))
    return (*_mixer(layer.mixer, dim, num_kv_shards), *ffn)


def _mixer(mixer: object, dim: int, num_kv_shards: int) -> Iterator[Matrix]:
    if isinstance(mixer, AttentionSpec):
        copies = max(1, num_kv_shards // mixer.num_kv_heads)
        query, *kv = mixer.qkv_rows
        yield Matrix("qkv", dim, query + copies * sum(kv), "columns")
        yield Matrix("attention out", mixer.query_dim, dim, "rows")
    elif isinstance(mixer, MLASpec):
        yield from _latent(mixer, dim)
    else:
        yield from _recurrent(mixer, dim)


def _latent(mixer: MLASpec, dim: int) -> Iterator[Matrix]:
    query_dim = mixer.num_heads * mixer.head_dim
    if mixer.query_latent_dim is None:
        yield Matrix("query", dim, query_dim, "columns")
    else:
        yield Matrix("query down", dim, mixer.query_latent_dim)
        yield Matrix("query up", mixer.query_latent_dim, query_dim, "columns")
    yield Matrix("latent down", dim, mixer.kv_latent_dim + mixer.rope_head_dim)
    expanded = mixer.num_heads * (mixer.nope_head_dim + mixer.value_head_dim)
    yield Matrix("latent up", mixer.kv_latent_dim, expanded, "columns")
    if mixer.indexer is not None:
        index = mixer.indexer
        source = mixer.query_latent_dim or dim
        yield Matrix("index query", source, index.num_heads * index.head_dim)
        yield Matrix("index key", dim, index.head_dim)
        yield Matrix("index weights", dim, index.num_heads)
    value_dim = mixer.num_heads * mixer.value_head_dim
    if mixer.output_gate:
        yield Matrix("output gate", dim, value_dim, "columns")
    yield Matrix("attention out", value_dim, dim, "rows")


def _recurrent(mixer: object, dim: int) -> Iterator[Matrix]:
    if isinstance(mixer, GatedDeltaNetSpec):
        value_dim = mixer.num_value_heads * mixer.value_dim
        yield Matrix("in", dim, mixer.conv_dim + value_dim + 2 * mixer.num_value_heads, "columns")
        yield Matrix("out", value_dim, dim, "rows")
    elif isinstance(mixer, KimiDeltaSpec):
        inner, rank = mixer.num_heads * mixer.head_dim, mixer.gate_rank or mixer.head_dim
        yield Matrix("in", dim, 3 * inner + mixer.num_heads, "columns")
        yield Matrix("gates down", dim, 2 * rank)
        yield Matrix("gates up", rank, 2 * inner, "columns")
        yield Matrix("out", inner, dim, "rows")
    elif isinstance(mixer, MambaSpec):
        yield Matrix("in", dim, 2 * mixer.inner_dim, "columns")
        yield Matrix("selection", mixer.inner_dim, mixer.step_rank + 2 * mixer.state_dim, "rows")
        yield Matrix("step", mixer.step_rank, mixer.inner_dim, "columns")
        yield Matrix("out", mixer.inner_dim, dim, "rows")
    elif isinstance(mixer, Mamba2Spec):
        columns = mixer.inner_dim + mixer.conv_dim + mixer.num_heads
        yield Matrix("in", dim, columns, "columns")
        yield Matrix("out", mixer.inner_dim, dim, "rows")
    elif isinstance(mixer, RWKVSpec):
        yield Matrix("in", dim, 3 * mixer.attention_dim, "columns")
        yield Matrix("out", mixer.attention_dim, dim, "rows")
    elif isinstance(mixer, MatrixRWKVSpec):
        yield from _matrix_rwkv(mixer, dim)
    elif isinstance(mixer, ShortConvSpec):
        yield Matrix("in", dim, 3 * mixer.dim, "columns")
        yield Matrix("out", mixer.dim, dim, "rows")
    elif isinstance(mixer, LinearAttentionSpec):
        keys, values = mixer.num_heads * mixer.key_dim, mixer.num_heads * mixer.value_dim
        gate = values if mixer.output_gate else 0
        yield Matrix("in", dim, 2 * keys + values + gate, "columns")
        if mixer.gate_rank is not None:
            yield Matrix("gate down", dim, mixer.gate_rank)
            yield Matrix("gate up", mixer.gate_rank, keys, "columns")
        yield Matrix("out", values, dim, "rows")
    else:
        raise TypeError(f"no matrices are known for {type(mixer).__name__}")


def _matrix_rwkv(mixer: MatrixRWKVSpec, dim: int) -> Iterator[Matrix]:
    yield Matrix("in", dim, 4 * mixer.inner_dim, "columns")
    if mixer.shift_rank is not None and mixer.decay_rank is not None:
        yield Matrix("shift down", dim, 5 * mixer.shift_rank)
        yield Matrix("shift up", mixer.shift_rank, 5 * dim)
        yield Matrix("decay down", dim, mixer.decay_rank)
        yield Matrix("decay up", mixer.decay_rank, mixer.inner_dim, "columns")
    yield Matrix("out", mixer.inner_dim, dim, "rows")


def _ffn(ffn: object, dim: int) -> Iterator[Matrix]:
    if isinstance(ffn, MLPSpec):
        yield Matrix("up", dim, _up_columns(ffn), "columns", branch="ffn")
        yield Matrix("down", ffn.hidden_dim, dim, "rows", branch="ffn")
    elif isinstance(ffn, MoESpec):
        yield from _experts(ffn, dim)
    elif isinstance(ffn, ChannelMixSpec):
        yield Matrix("key", dim, ffn.hidden_dim, "columns", branch="ffn")
        yield Matrix("value", ffn.hidden_dim, dim, "rows", branch="ffn")
        yield Matrix("receptance", dim, dim, branch="ffn")
    else:
        raise TypeError(f"no matrices are known for {type(ffn).__name__}")


def _experts(ffn: MoESpec, dim: int) -> Iterator[Matrix]:
    width, experts, chosen = ffn.latent_dim or dim, ffn.num_experts, ffn.top_k
    if ffn.router.kind != "hash":
        outputs = experts * (ffn.router.num_slots if ffn.router.kind == "soft" else 1)
        yield Matrix("router", dim, outputs, branch="ffn")
    if ffn.latent_dim is not None:
        yield Matrix("latent in", dim, width, branch="ffn")
        yield Matrix("latent out", width, dim, branch="ffn")
    yield Matrix("experts up", width, _up_columns(ffn.expert), "columns", experts, chosen, "ffn")
    yield Matrix("experts down", ffn.expert.hidden_dim, width, "rows", experts, chosen, "ffn")
    if ffn.shared is not None:
        yield Matrix("shared up", dim, _up_columns(ffn.shared), "columns", branch="ffn")
        yield Matrix("shared down", ffn.shared.hidden_dim, dim, "rows", branch="ffn")
        if ffn.shared_gate:
            yield Matrix("shared gate", dim, 1, branch="ffn")


def _up_columns(ffn: MLPSpec) -> int:
    return ffn.hidden_dim * (2 if ffn.gated else 1)
