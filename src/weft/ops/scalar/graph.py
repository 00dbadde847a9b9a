"""The recorded computation of a ``Scalar`` as a drawing."""

from __future__ import annotations

from collections.abc import Mapping

from weft.ops.scalar.tape import Scalar, topological_order


def to_dot(result: Scalar, names: Mapping[str, Scalar] | None = None) -> str:
    """Return the graph of a computation in Graphviz's language.

    Args:
        result: The scalar whose history is drawn.
        names: Labels of some scalars.

    >>> print(to_dot(Scalar(1.0) + Scalar(2.0)).splitlines()[0])
    digraph tape { rankdir=LR; node [shape=box];
    """
    labels = {id(scalar): f"{name}: " for name, scalar in (names or {}).items()}
    order = topological_order(result)
    number = {id(node): index for index, node in enumerate(order)}
    lines = ["digraph tape { rankdir=LR; node [shape=box];"]
    for index, node in enumerate(order):
        op = f" = {node.op}" if node.op else ""
        label = f"{labels.get(id(node), '')}{node.value:g}{op} | grad {node.grad:g}"
        lines.append(f'  n{index} [label="{label}"];')
        lines += (f"  n{number[id(parent)]} -> n{index};" for parent in node.parents)
    return "\n".join([*lines, "}"])
