"""torch.compile, one block at a time.

Blocks are alike, so they share compiled code; unrolling all of them costs a minute or more and
gains nothing. The lengths of packed documents are constants of the code: it pays where they
repeat (whole sequences), and torch falls back to eager code after a few different ones. Where
nothing can be compiled, training goes on without.
"""

from __future__ import annotations

import torch
from torch import nn

from weft.models.decoder import Block


def compile_blocks(model: nn.Module, *, backend: str = "inductor") -> str | None:
    """Compile the model's blocks in place; returns why not where that is impossible."""
    try:
        torch.compile(_probe, backend=backend)(torch.ones(2))
    except Exception as error:
        return f"torch.compile does not work here ({_first_line(error)}); training runs without it"
    for module in model.modules():
        if isinstance(module, Block):
            module.compile(backend=backend)
    return None


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
