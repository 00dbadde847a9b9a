"""Derivatives by finite differences, to check the ones written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


@torch.no_grad()
def numerical_jacobian(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], index: int, *, step: float = 1e-6
) -> Tensor:
    """Return the derivative of every output by every element of one input.

    Central differences, (f(x + h) - f(x - h)) / 2h, whose error falls with h²; rounding adds about
    eps / h, so h near the cube root of eps is best: 1e-6 in float64, 1e-2 in float32.

    Args:
        function: Takes the inputs, returns one tensor.
        inputs: Where to differentiate; left unchanged.
        index: Which input to differentiate by.
        step: h.

    Returns:
        [outputs, elements of the input], float64.
    """
    point = [tensor.detach().clone() for tensor in inputs]
    flat = point[index].view(-1)
    columns = []
    for element in range(flat.numel()):
        start = float(flat[element])
        values = []
        for sign in (1.0, -1.0):
            flat[element] = start + sign * step
            # What was added is what the type could hold of it.
            values.append((function(*point).double().flatten(), float(flat[element])))
        flat[element] = start
        (above, high), (below, low) = values
        columns.append((above - below) / (high - low))
    return torch.stack(columns, dim=1)


def analytic_jacobian(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], index: int
) -> Tensor:
    """Return the same as ``numerical_jacobian`` by one backward pass per output."""
    point = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in inputs]
    outputs = function(*point).flatten()
    rows = []
    for output in outputs:
        (gradient,) = torch.autograd.grad(output, point[index], retain_graph=True)
        rows.append(gradient.double().flatten())
    return torch.stack(rows)


def gradient_error(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], *, step: float = 1e-6
) -> float:
    """Return the largest difference between both Jacobians over all inputs that need gradients.

    >>> x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    >>> gradient_error(torch.sin, [x]) < 1e-8
    True
    """
    errors = [
        (
            analytic_jacobian(function, inputs, i)
            - numerical_jacobian(function, inputs, i, step=step)
        )
        .abs()
        .max()
        for i, tensor in enumerate(inputs)
        if tensor.requires_grad
    ]
    return float(torch.stack(errors).max())
