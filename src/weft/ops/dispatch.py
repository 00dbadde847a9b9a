"""One op, one reference, several implementations: ``KernelSpec`` and how one is chosen.

The rule is the same for every op: the first implementation whose predicate accepts the
tensors runs; the reference accepts everything. Tolerances are data, so that the tests of all
implementations are one parametrised function, and traffic is data, so that a benchmark can
print a share of the machine's bandwidth.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tolerance:
    """How far an implementation may be from its reference.

    Attributes:
        rtol: Relative to the reference's element.
        atol: For elements near zero, relative to the reference's largest element, at least 1.
    """

    rtol: float
    atol: float


DEFAULT_TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float64: Tolerance(1e-10, 1e-11),
    torch.float32: Tolerance(2e-5, 2e-6),
    torch.bfloat16: Tolerance(1.6e-2, 1e-2),
}


@dataclass(frozen=True)
class Implementation:
    """One way to compute an op.

    Attributes:
        name: Short and stable, such as "native"; it appears in benchmarks and in ``weft doctor``.
        function: Same signature as the reference.
        accepts: Whether it can run these arguments; called with the op's own arguments.
    """

    name: str
    function: Callable[..., Any]
    accepts: Callable[..., bool]


@dataclass(frozen=True)
class KernelSpec:
    """An op: its definition, its implementations and what is known about it.

    Attributes:
        name: The public function's name.
        reference: Plain torch, obviously right, any device and dtype.
        implementations: In order of preference; the reference is the last resort.
        tolerances: Largest distance from the reference by element type.
        num_bytes: Least memory traffic in bytes for these arguments, where simple.
        num_flops: Arithmetic for these arguments, where simple.
    """

    name: str
    reference: Callable[..., Any]
    implementations: tuple[Implementation, ...] = ()
    tolerances: dict[torch.dtype, Tolerance] = field(
        default_factory=lambda: dict(DEFAULT_TOLERANCES)
    )
    num_bytes: Callable[..., int] | None = None
    num_flops: Callable[..., int] | None = None

    def __call__(self, *args: Any) -> Any:
        """Run the first implementation that accepts the arguments."""
        for implementation in self.implementations:
            if implementation.accepts(*args):
                return implementation.function(*args)
        return self.reference(*args)

    def chosen(self, *args: Any) -> str:
        """Return the name of the implementation that would run."""
        for implementation in self.implementations:
            if implementation.accepts(*args):
                return implementation.name
        return "reference"


def needs_grad(*tensors: Tensor) -> bool:
    """Return whether autograd would record an op on these tensors."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def no_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Switch autocast off inside; the meta device, which only knows shapes, has none."""
    if device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
