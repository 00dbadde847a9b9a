"""Muon: momentum, then the nearest semi-orthogonal matrix, for all matrices of a shape at once.

Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. Decoupled weight decay and
the step scale follow Liu et al. 2025, arXiv:2502.16982.

Letters: B matrices of one shape, M rows, N columns.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# p(s) = a s + b s^3 + c s^5 grows small singular values fastest; it does not converge to 1 but
# stays inside this band, which training does not notice (Jordan et al. 2024).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
SINGULAR_VALUE_BAND = (0.65, 1.25)
_EPS = 1e-7
# Matrices orthogonalised in one batch hold at most this many numbers, to bound the copies.
_MAX_BATCH_NUMEL = 1 << 25


def newton_schulz(
    x_BMN: Tensor, *, num_iterations: int = 5, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return matrices with the singular vectors of [B, M, N] and singular values near 1.

    Runs in ``dtype``; the result has it too. Five iterations bring singular values above about
    0.01 of the Frobenius norm into ``SINGULAR_VALUE_BAND``.
    """
    a, b, c = NEWTON_SCHULZ
    tall = x_BMN.shape[-2] > x_BMN.shape[-1]
    x_BMN = x_BMN.to(dtype)
    norm_B = torch.linalg.vector_norm(x_BMN, dim=(-2, -1), keepdim=True, dtype=torch.float32)
    x_BMN = x_BMN / norm_B.clamp(min=_EPS).to(dtype)
    # The Gram matrix is taken over the shorter side: its cost is cubic in that side.
    x_BMN = x_BMN.mT.contiguous() if tall else x_BMN
    for _ in range(num_iterations):
        gram_BMM = torch.bmm(x_BMN, x_BMN.mT)
        polynomial_BMM = torch.baddbmm(gram_BMM, gram_BMM, gram_BMM, beta=b, alpha=c)
        x_BMN = torch.baddbmm(x_BMN, polynomial_BMM, x_BMN, beta=a)
    return x_BMN.mT if tall else x_BMN


def step_scale(num_rows: int, num_columns: int) -> float:
    """Return the factor on an orthogonalised update: ``0.2 sqrt(max(M, N))``.

    Gives an update the root mean square of a typical AdamW step, so that one learning rate
    serves matrices, tables and vectors (arXiv:2502.16982, section 2.2).
    """
    return 0.2 * math.sqrt(max(num_rows, num_columns))


@dataclass(frozen=True)
class _Rows:
    """Some rows of a parameter that are one map: all of them, or a part of a merged matrix."""

    parameter: nn.Parameter
    start: int
    num_rows: int

    def of(self, tensor: Tensor) -> Tensor:
        """Return these rows of a tensor shaped like the parameter, as [B, M, N]."""
        rows = tensor.narrow(-2, self.start, self.num_rows)
        return rows.reshape(-1, *rows.shape[-2:]) if tensor.ndim != 3 else rows

    @property
    def num_matrices(self) -> int:
        return math.prod(self.parameter.shape[:-2])


class _Rates(NamedTuple):
    """What one step needs to know of its group; 0-d tensors when a step may be skipped."""

    lr: float | Tensor
    decay: float | Tensor
    momentum: float
    nesterov: bool
    num_iterations: int
    skip: Tensor | None


class Muon(torch.optim.Optimizer):
    """Muon for 2-D parameters and stacks of matrices (3-D, one map for each first index).

    Args:
        named_parameters: Matrices under their names.
        lr: Learning rate in AdamW's scale (see ``step_scale``).
        momentum: Of the exponential average of gradients.
        weight_decay: Decoupled: shrinks weights by ``lr * weight_decay`` each step.
        nesterov: Look ahead: orthogonalise the average of the gradient and the momentum.
        num_iterations: Newton-Schulz iterations.
        merged_rows: Row counts of the separate maps inside a parameter, by name.
        dtype: Element type of the Newton-Schulz iterations; bfloat16 is enough.

    A step reads ``found_inf`` if it is set (a 0-d tensor, as torch's fused optimizers do) and
    changes nothing when it is not zero; the tensor is never read by the host.
    """

    def __init__(
        self,
        named_parameters: Mapping[str, nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        nesterov: bool = True,
        num_iterations: int = 5,
        merged_rows: Mapping[str, tuple[int, ...]] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        for name, parameter in named_parameters.items():
            if parameter.ndim not in (2, 3):
                raise ValueError(f"Muon orthogonalises matrices; {name} is {parameter.ndim}-D")
        self.dtype = dtype
        self.found_inf: Tensor | None = None
        self._buckets = _buckets(named_parameters, merged_rows or {})
        defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "num_iterations": num_iterations,
        }
        super().__init__(list(named_parameters.values()), defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None, "the trainer computes gradients before it calls step"
        (group,) = self.param_groups
        rates = _rates(group, self.found_inf)
        for bucket in self._buckets:
            rows = [row for row in bucket if row.parameter.grad is not None]
            if rows:
                self._step_bucket(rows, rates)

    def _step_bucket(self, rows: list[_Rows], rates: _Rates) -> None:
        momenta = [row.of(self._momentum(row.parameter)) for row in rows]
        gradients = [row.of(_gradient(row.parameter)) for row in rows]
        if rates.skip is not None:
            # A gradient equal to the momentum leaves the momentum as it is.
            gradients = [
                torch.where(rates.skip, m, g) for m, g in zip(momenta, gradients, strict=True)
            ]
        torch._foreach_lerp_(momenta, gradients, 1 - rates.momentum)
        updates = (
            torch._foreach_lerp(gradients, momenta, rates.momentum) if rates.nesterov else momenta
        )
        x_BMN = torch.cat([update.to(self.dtype) for update in updates])
        x_BMN = newton_schulz(x_BMN, num_iterations=rates.num_iterations, dtype=self.dtype)
        x_BMN = x_BMN.to(gradients[0].dtype) * (-step_scale(*x_BMN.shape[-2:]) * rates.lr)
        weights = [row.of(row.parameter) for row in rows]
        torch._foreach_mul_(weights, rates.decay)
        torch._foreach_add_(weights, list(x_BMN.split([row.num_matrices for row in rows])))

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(
                parameter, memory_format=torch.contiguous_format
            )
        return state["momentum_buffer"]


def _rates(group: dict[str, Any], found_inf: Tensor | None) -> _Rates:
    lr: float | Tensor = group["lr"]
    skip = None
    if found_inf is not None:
        skip = found_inf != 0
        lr = torch.where(skip, 0.0, group["lr"])
    decay = 1 - lr * group["weight_decay"]
    return _Rates(lr, decay, group["momentum"], group["nesterov"], group["num_iterations"], skip)


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _buckets(
    named_parameters: Mapping[str, nn.Parameter], merged_rows: Mapping[str, tuple[int, ...]]
) -> list[list[_Rows]]:
    """Group all maps by shape, device and type, so that each group is one batched iteration."""
    groups: dict[Any, list[_Rows]] = defaultdict(list)
    for name, parameter in named_parameters.items():
        start = 0
        for num_rows in merged_rows.get(name, (parameter.shape[-2],)):
            key = (num_rows, parameter.shape[-1], parameter.device, parameter.dtype)
            groups[key].append(_Rows(parameter, start, num_rows))
            start += num_rows
        if start != parameter.shape[-2]:
            raise ValueError(f"the parts of {name} have {start} rows, not {parameter.shape[-2]}")
    return [bucket for group in groups.values() for bucket in _bounded(group)]


def _bounded(rows: list[_Rows]) -> list[list[_Rows]]:
    """Cut a group where its matrices together pass ``_MAX_BATCH_NUMEL``."""
    buckets: list[list[_Rows]] = [[]]
    numel = 0
    for row in rows:
        size = row.num_matrices * row.num_rows * row.parameter.shape[-1]
        if buckets[-1] and numel + size > _MAX_BATCH_NUMEL:
            buckets.append([])
            numel = 0
        buckets[-1].append(row)
        numel += size
    return buckets
