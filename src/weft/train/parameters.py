"""Which parameters an optimizer treats alike.

Matrices are hidden linear maps: Muon orthogonalises them and weight decay shrinks them. Lookup
tables (embeddings, positions, routers, the output projection) have rows that are used one at a
time, and vectors (norm weights, biases, one filter or mixing weight per channel) scale or shift:
neither is a map whose spectrum means something, so AdamW updates both, without decay (Jordan et
al. 2024, https://kellerjordan.github.io/posts/muon).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import singledispatch

from torch import nn

from weft.models.block_draft import BlockHead
from weft.models.decoder import Decoder
from weft.models.eagle import EagleHead
from weft.models.encoder import Encoder
from weft.spec import (
    AttentionSpec,
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    LayerSpec,
    LinearAttentionSpec,
    Mamba2Spec,
    MambaSpec,
    MLASpec,
    MLPSpec,
    MoESpec,
    ShortConvSpec,
)

TABLES = (
    "embed.weight", "head.weight", "positions.weight", "token_types.weight", "relative_bias.weight",
    "router.weight", "router.noise_weight", "bigram_in.weight", "bigram_out.weight",
)  # fmt: skip
# One number, filter, rate or mixing weight per channel, or one bias per expert and channel.
PER_CHANNEL = ("bias", "conv.weight", ".mix", ".a_log", ".decay", ".bonus")

NamedParameters = dict[str, nn.Parameter]


@dataclass(frozen=True)
class ParameterKinds:
    """The learnt parameters of a model by kind, each under its name."""

    matrices: NamedParameters = field(default_factory=dict)
    tables: NamedParameters = field(default_factory=dict)
    vectors: NamedParameters = field(default_factory=dict)


def sort_parameters(model: nn.Module) -> ParameterKinds:
    """Sort the parameters that require gradients into matrices, tables and vectors."""
    kinds = ParameterKinds()
    for name, parameter in learnt_parameters(model):
        if name.endswith(TABLES):
            kinds.tables[name] = parameter
        elif _is_map(name, parameter):
            kinds.matrices[name] = parameter
        else:
            kinds.vectors[name] = parameter
    return kinds


def learnt_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the name and value of each parameter that requires a gradient."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


def _is_map(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and parameter.shape[-2] > 1 and not name.endswith(PER_CHANNEL)


def merged_rows(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the row counts of the maps inside each merged matrix of a model.

    Query, key and value (and gate and up) are stored as one tensor only so that one matmul
    computes them. They are separate maps with separate spectra, hence orthogonalised apart.
    """
    rows: dict[str, tuple[int, ...]] = {}
    for prefix, module in model.named_modules():
        start = f"{prefix}." if prefix else ""
        if isinstance(module, EagleHead):
            rows |= _prefixed(f"{start}block.", _layer_rows(module.layer))
        elif isinstance(module, BlockHead):
            for index, layer in enumerate(module.spec.layers):
                rows |= _prefixed(f"{start}blocks.{index}.", _layer_rows(layer))
        if not isinstance(module, Decoder | Encoder):
            continue
        for index, layer in enumerate(module.spec.layers):
            rows |= _prefixed(f"{start}layers.{index}.", _layer_rows(layer))
        if isinstance(module, Decoder):
            for index in range(module.spec.num_mtp_layers):
                last = _layer_rows(module.spec.layers[-1])
                rows |= _prefixed(f"{start}mtp.{index}.block.", last)
    return rows


def _prefixed(prefix: str, rows: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {prefix + name: sizes for name, sizes in rows.items()}


def _layer_rows(layer: LayerSpec) -> dict[str, tuple[int, ...]]:
    rows = {f"mixer.{name}": sizes for name, sizes in part_rows(layer.mixer).items()}
    if layer.cross is not None:
        rows["cross.kv.weight"] = (layer.cross.kv_dim,) * 2
    if layer.ffn is not None:
        rows |= {f"ffn.{name}": sizes for name, sizes in part_rows(layer.ffn).items()}
    return rows


@singledispatch
def part_rows(part: object) -> dict[str, tuple[int, ...]]:
    """Return the merged matrices of one mixer or feed-forward part; most have none."""
    return {}


@part_rows.register
def _(part: AttentionSpec) -> dict[str, tuple[int, ...]]:
    return {"qkv.weight": part.qkv_rows}


@part_rows.register
def _(part: MLASpec) -> dict[str, tuple[int, ...]]:
    return {"down.weight": part.down_rows}


@part_rows.register
def _(part: LinearAttentionSpec) -> dict[str, tuple[int, ...]]:
    keys, values = part.num_heads * part.key_dim, part.num_heads * part.value_dim
    return {"qkv.weight": (keys, keys, values) + ((values,) if part.output_gate else ())}


@part_rows.register
def _(part: GatedDeltaNetSpec) -> dict[str, tuple[int, ...]]:
    keys = part.num_key_heads * part.key_dim
    values = part.num_value_heads * part.value_dim
    return {
        "qkvz.weight": (keys, keys, values, values),
        "ba.weight": (part.num_value_heads,) * 2,
    }


@part_rows.register
def _(part: KimiDeltaSpec) -> dict[str, tuple[int, ...]]:
    inner = part.num_heads * part.head_dim
    return {"qkv.weight": (inner,) * 3, "low.weight": (part.rank, part.rank, part.num_heads)}


@part_rows.register
def _(part: MambaSpec) -> dict[str, tuple[int, ...]]:
    return {
        "in_proj.weight": (part.inner_dim,) * 2,
        "x_proj.weight": (part.step_rank, part.state_dim, part.state_dim),
    }


@part_rows.register
def _(part: Mamba2Spec) -> dict[str, tuple[int, ...]]:
    shared = part.num_groups * part.state_dim
    return {"in_proj.weight": (part.inner_dim, part.inner_dim, shared, shared, part.num_heads)}


@part_rows.register
def _(part: ShortConvSpec) -> dict[str, tuple[int, ...]]:
    return {"in_proj.weight": (part.dim,) * 3}


@part_rows.register
def _(part: MLPSpec) -> dict[str, tuple[int, ...]]:
    return {"gate_up.weight": (part.hidden_dim,) * 2} if part.gated else {}


@part_rows.register
def _(part: MoESpec) -> dict[str, tuple[int, ...]]:
    rows: dict[str, tuple[int, ...]] = {}
    if part.expert.gated:
        rows["experts.gate_up"] = (part.expert.hidden_dim,) * 2
    if part.shared is not None and part.shared.gated:
        rows["shared.gate_up.weight"] = (part.shared.hidden_dim,) * 2
    return rows
