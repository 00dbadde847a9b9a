"""Weight-only quantized linear layers."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.quant.affine import AffineScheme, Quantized, dequantize_weight, quantize_weight

DEFAULT_TARGETS = ("*.mixer.*", "*.ffn.*")


class QuantizedLinear(nn.Module):
    """A linear layer whose weight is stored as integers and used as floats."""

    def __init__(self, base: nn.Linear, scheme: AffineScheme) -> None:
        super().__init__()
        quantized = quantize_weight(base.weight.detach(), scheme)
        self.register_buffer("values_OI", quantized.values_OI)
        self.register_buffer("scales_OG", quantized.scales_OG)
        self.register_buffer("zeros_OG", quantized.zeros_OG)
        self.bias = base.bias
        self.out_features, self.in_features = base.out_features, base.in_features

    def forward(self, x_TI: Tensor) -> Tensor:
        """Return x W^T + b with the dequantized weight, [T, O]."""
        weight_OI = dequantize_weight(Quantized(self.values_OI, self.scales_OG, self.zeros_OG))
        return F.linear(x_TI, weight_OI.to(x_TI.dtype), self.bias)


@torch.no_grad()
def quantize_model(
    model: nn.Module, scheme: AffineScheme, *, targets: Sequence[str] = DEFAULT_TARGETS
) -> list[str]:
    """Replace matching linear layers, round to nearest; returns their names."""
    names = []
    for name, module in list(model.named_modules()):
        matches = any(fnmatch.fnmatch(name, pattern) for pattern in targets)
        if matches and isinstance(module, nn.Linear):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, QuantizedLinear(module, scheme))
            names.append(name)
    return names
