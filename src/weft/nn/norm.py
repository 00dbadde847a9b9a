"""RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467), LayerNorm (arXiv:1607.06450) and GroupNorm
(Wu and He 2018, arXiv:1803.08494).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.ops import rms_norm
from weft.spec import NormSpec


class RMSNorm(nn.Module):
    """Scale the last axis to unit root mean square, then by a learnt weight.

    Statistics are taken in float32. Where the result is rounded back to the input's type differs
    between families and is visible in bf16: before the weight is applied (Llama), or after
    (``float32_weight``: Gemma, OLMo-2, gpt-oss).
    """

    def __init__(
        self,
        dim: int,
        eps: float,
        *,
        zero_centred: bool = False,
        float32_weight: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        start = torch.zeros if zero_centred else torch.ones
        self.weight = nn.Parameter(start(dim, device=device, dtype=dtype))
        self.eps = eps
        self.zero_centred = zero_centred
        self.float32_weight = float32_weight

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., dim]."""
        if not (self.zero_centred or self.float32_weight):
            return rms_norm(x, self.weight, self.eps)
        weight = self.weight.float() + 1.0 if self.zero_centred else self.weight.float()
        if self.float32_weight:
            return rms_norm(x.float(), weight, self.eps).to(x.dtype)
        return rms_norm(x, weight.to(x.dtype), self.eps)

    def init_parameters(self, generator: torch.Generator) -> None:
        """Start as the plain normalisation."""
        self.weight.fill_(0.0 if self.zero_centred else 1.0)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


class LayerNorm(nn.Module):
    """Centre the last axis, scale it to unit variance, then by a learnt weight and bias."""

    def __init__(
        self,
        dim: int,
        eps: float,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(dim, device=device, dtype=dtype)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., dim]."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

    def init_parameters(self, generator: torch.Generator) -> None:
        """Start as the plain normalisation."""
        self.weight.fill_(1.0)
        if self.bias is not None:
            self.bias.zero_()

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


class GroupNorm(nn.Module):
    """LayerNorm of each of several equal parts of the last axis, such as the heads of a mixer."""

    def __init__(
        self,
        dim: int,
        num_groups: int,
        eps: float,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(dim, device=device, dtype=dtype))
        self.num_groups = num_groups
        self.eps = eps

    def forward(self, x_TD: Tensor) -> Tensor:
        """Normalise [T, dim]."""
        return F.group_norm(x_TD, self.num_groups, self.weight, self.bias, self.eps)

    def init_parameters(self, generator: torch.Generator) -> None:
        """Start as the plain normalisation."""
        self.weight.fill_(1.0)
        self.bias.zero_()

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, groups={self.num_groups}, eps={self.eps}"


def build_norm(
    dim: int,
    spec: NormSpec,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> RMSNorm | LayerNorm:
    """Return the norm a specification describes."""
    if spec.kind == "layer":
        return LayerNorm(dim, spec.eps, bias=spec.bias, device=device, dtype=dtype)
    return RMSNorm(
        dim,
        spec.eps,
        zero_centred=spec.zero_centred,
        float32_weight=spec.float32_weight,
        device=device,
        dtype=dtype,
    )
