"""Which parameters an optimizer treats alike.

Matrices are hidden linear maps: Muon orthogonalises them and weight decay shrinks them. Lookup
tables (the embedding and the output projection) have rows that are used one at a time, and
vectors (norm weights, biases) scale or shift: neither is a map whose spectrum means something,
so AdamW updates both, without decay (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from weft.models.decoder import Decoder
from weft.spec import AttentionSpec, MLPSpec

TABLES = ("embed.weight", "head.weight")

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
        elif parameter.ndim >= 2:
            kinds.matrices[name] = parameter
        else:
            kinds.vectors[name] = parameter
    return kinds


def learnt_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the name and value of each parameter that requires a gradient."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


def merged_rows(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the row counts of the maps inside each merged matrix of a ``Decoder``.

    Query, key and value (and gate and up) are stored as one tensor only so that one matmul
    computes them. They are separate maps with separate spectra, hence orthogonalised apart.
    """
    rows: dict[str, tuple[int, ...]] = {}
    if isinstance(model, Decoder):
        for index, layer in enumerate(model.spec.layers):
            if isinstance(layer.mixer, AttentionSpec):
                rows[f"layers.{index}.mixer.qkv.weight"] = layer.mixer.qkv_rows
            if isinstance(layer.ffn, MLPSpec) and layer.ffn.gated:
                rows[f"layers.{index}.ffn.gate_up.weight"] = (layer.ffn.hidden_dim,) * 2
    return rows
