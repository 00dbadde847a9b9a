"""The dense feed-forward part. T tokens, D model width, F inner width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.ops import swiglu
from weft.ops.activation.functions import ACTIVATIONS
from weft.ops.activation.gated import gated_unit
from weft.spec import MLPSpec


class MLP(nn.Module):
    """Gated: ``down(act(gate) * up)``, gate and up as one matrix with rows in that order.

    SwiGLU is the case ``act = silu`` (Shazeer 2020, arXiv:2002.05202). Ungated:
    ``down(act(up))``.
    """

    def __init__(
        self,
        dim: int,
        spec: MLPSpec,
        *,
        layer: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        where = {"device": device, "dtype": dtype}
        if spec.gated:
            self.gate_up = Linear(dim, 2 * spec.hidden_dim, bias=spec.bias, **where)
        else:
            self.up = Linear(dim, spec.hidden_dim, bias=spec.bias, **where)
        self.down = Linear(spec.hidden_dim, dim, bias=spec.bias, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext | None = None) -> Tensor:
        """Transform each token of [T, D] alone; ``ctx`` is what other kinds of parts need."""
        return self.down(self._activate(x_TD))

    def _activate(self, x_TD: Tensor) -> Tensor:
        if not self.spec.gated:
            return ACTIVATIONS[self.spec.activation](self.up(x_TD))
        gate_up_TM = self.gate_up(x_TD)
        if self.spec.activation == "silu":
            return swiglu(gate_up_TM)
        gate_TF, up_TF = gate_up_TM.chunk(2, dim=-1)
        return gated_unit(gate_TF, up_TF, self.spec.activation)
