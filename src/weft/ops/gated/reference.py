"""SwiGLU's activation in plain torch. T tokens (any leading axes), F inner width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def swiglu(gate_up_T2F: Tensor) -> Tensor:
    """Return ``silu(gate) * up`` of merged columns, gate first."""
    gate_TF, up_TF = gate_up_T2F.chunk(2, dim=-1)
    return F.silu(gate_TF) * up_TF
