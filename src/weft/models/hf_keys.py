"""Two-way maps between our parameter names and Hugging Face's, as data.

One ``Rule`` says: this tensor of ours is the row-wise concatenation of those tensors of theirs.
A rename is the case of one part. ``{layer}`` in both names stands for the layer's index. Row
counts of the parts follow from the layer's specification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from weft.spec import LayerSpec, ModelSpec

RowCounts = Callable[[LayerSpec], tuple[int, ...]]


@dataclass(frozen=True)
class Rule:
    """Our name, their names, and how many rows each of theirs has (none: one part, all rows)."""

    ours: str
    theirs: tuple[str, ...]
    rows: RowCounts | None = None


@dataclass(frozen=True)
class Part:
    """One tensor of theirs and the rows of our tensor it fills."""

    ours: str
    theirs: str
    start: int
    num_rows: int | None


def qkv_rows(layer: LayerSpec) -> tuple[int, ...]:
    """Return the rows of query, key and value in the merged projection."""
    return (layer.mixer.query_dim, layer.mixer.kv_dim, layer.mixer.kv_dim)


def gate_up_rows(layer: LayerSpec) -> tuple[int, ...]:
    """Return the rows of gate and up in the merged projection."""
    return (layer.ffn.hidden_dim, layer.ffn.hidden_dim)


def parts(spec: ModelSpec, rules: tuple[Rule, ...]) -> Iterator[Part]:
    """Yield every tensor of theirs with its place in ours, layer by layer."""
    for rule in rules:
        if "{layer}" not in rule.ours:
            yield Part(rule.ours, rule.theirs[0], 0, None)
            continue
        for index, layer in enumerate(spec.layers):
            rows = (None,) if rule.rows is None else rule.rows(layer)
            start = 0
            for theirs, num_rows in zip(rule.theirs, rows, strict=True):
                yield Part(
                    rule.ours.format(layer=index), theirs.format(layer=index), start, num_rows
                )
                start += num_rows or 0
