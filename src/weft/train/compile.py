"""torch.compile, one block at a time.

Blocks are alike, so they share one compiled graph; unrolling all of them costs a minute or more
and gains nothing. Where nothing can be compiled, training goes on without.
"""

from __future__ import annotations

import torch

from weft.models.decoder import Decoder


def compile_blocks(model: Decoder) -> str | None:
    """Compile the model's blocks in place; returns why not where that is impossible."""
    try:
        torch.compile(_probe)(torch.ones(2))
    except Exception as error:
        return f"torch.compile does not work here ({_first_line(error)}); training runs without it"
    for layer in model.layers:
        layer.compile()
    return None


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
