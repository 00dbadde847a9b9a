"""RMSNorm with a gate, as recurrent layers put it before their output projection."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from weft.ops import rms_norm


class GatedRMSNorm(nn.Module):
    """``norm(x) * weight * act(gate)``, or with ``gate_first`` ``norm(x * act(gate)) * weight``.

    Statistics and gate are float32; the weight applies before (``float32_weight``) or after the
    result of the norm is rounded to the input's type.
    """

    def __init__(
        self,
        dim: int,
        eps: float,
        *,
        activation: Literal["silu", "sigmoid"] = "silu",
        num_groups: int = 1,
        gate_first: bool = False,
        float32_weight: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))
        self.eps = eps
        self.activation = activation
        self.num_groups = num_groups
        self.gate_first = gate_first
        self.float32_weight = float32_weight

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Normalise [..., dim], each of ``num_groups`` parts of the last axis alone."""
        gate = gate.float()
        gate = gate.sigmoid() if self.activation == "sigmoid" else nn.functional.silu(gate)
        if self.gate_first:
            return self._norm((x.float() * gate), x.dtype)
        return (self._norm(x, x.dtype) * gate).to(x.dtype)

    def _norm(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        if self.float32_weight:
            return rms_norm(x.float(), self.weight.float(), self.eps)
        if self.num_groups == 1:
            return rms_norm(x.to(dtype), self.weight, self.eps)
        parts = x.float().unflatten(-1, (self.num_groups, -1))
        parts = parts * torch.rsqrt(parts.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * parts.flatten(-2).to(dtype)

    def init_parameters(self, generator: torch.Generator) -> None:
        """Start as the plain normalisation."""
        self.weight.fill_(1.0)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}, {self.activation}"
