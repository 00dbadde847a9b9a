"""Reverse-mode automatic differentiation of scalars."""

from __future__ import annotations


class Scalar:
    """A number, the scalars it was computed from, and the derivative by each of them.

    ``backward`` walks the recorded computation once, from the result to the inputs, and adds up
    the chain rule in ``grad`` (Linnainmaa 1970; Baydin et al. 2018, arXiv:1502.05767).

    Attributes:
        value: The number.
        grad: Derivative of the scalar that ``backward`` was called on by this one.
        parents: What it was computed from.
        op: How, for drawings.

    >>> x = Scalar(3.0)
    >>> (x * x + x).backward()
    >>> x.grad
    7.0
    """

    __slots__ = ("_derivatives", "grad", "op", "parents", "value")

    def __init__(
        self,
        value: float,
        parents: tuple[Scalar, ...] = (),
        derivatives: tuple[float, ...] = (),
        op: str = "",
    ) -> None:
        self.value = value
        self.grad = 0.0
        self.parents = parents
        self.op = op
        self._derivatives = derivatives

    def __add__(self, other: Scalar | float) -> Scalar:
        other = _scalar(other)
        return Scalar(self.value + other.value, (self, other), (1.0, 1.0), "+")

    def __sub__(self, other: Scalar | float) -> Scalar:
        other = _scalar(other)
        return Scalar(self.value - other.value, (self, other), (1.0, -1.0), "-")

    def __mul__(self, other: Scalar | float) -> Scalar:
        other = _scalar(other)
        return Scalar(self.value * other.value, (self, other), (other.value, self.value), "×")

    def __neg__(self) -> Scalar:
        return Scalar(-self.value, (self,), (-1.0,), "-")

    def __radd__(self, other: float) -> Scalar:
        return self + other

    def __rsub__(self, other: float) -> Scalar:
        return _scalar(other) - self

    def __rmul__(self, other: float) -> Scalar:
        return self * other

    def relu(self) -> Scalar:
        """Return max(0, x); the derivative at 0 is 0."""
        positive = self.value > 0
        return Scalar(self.value if positive else 0.0, (self,), (float(positive),), "relu")

    def backward(self) -> None:
        """Add the derivative of this scalar to ``grad`` of every scalar it depends on."""
        order = topological_order(self)
        self.grad += 1.0
        for node in reversed(order):
            for parent, derivative in zip(node.parents, node._derivatives, strict=True):
                parent.grad += derivative * node.grad

    def __repr__(self) -> str:
        return f"Scalar({self.value:g}, grad={self.grad:g})"


def topological_order(result: Scalar) -> list[Scalar]:
    """Return every scalar ``result`` depends on, each after all its parents."""
    order: list[Scalar] = []
    seen: set[int] = set()
    # An explicit stack: sums over a batch make chains deeper than Python's recursion limit.
    stack: list[tuple[Scalar, bool]] = [(result, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents)
    return order


def _scalar(value: Scalar | float) -> Scalar:
    return value if isinstance(value, Scalar) else Scalar(value)
