"""Weight initialisation as a function of a seed.

Matrices are normal with variance 1 / fan-in; those that write into the residual stream are
divided by sqrt(2 L), so that its variance does not grow with depth (Radford et al. 2019, GPT-2).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from weft.spec import EncoderSpec, ModelSpec

# Small enough that tied logits start near uniform.
EMBEDDING_STD = 0.02
RESIDUAL_OUTPUTS = (
    ".mixer.out.weight",
    ".cross.out.weight",
    ".ffn.down.weight",
    ".ffn.experts.down",
    ".ffn.shared.down.weight",
)


@torch.no_grad()
def init_weights(model: nn.Module, spec: ModelSpec | EncoderSpec, *, seed: int) -> None:
    """Fill every parameter in place; equal seeds give equal weights on every device.

    Modules with a method ``init_parameters(generator)`` fill their own direct parameters.
    """
    generator = torch.Generator().manual_seed(seed)
    own = {name: fill for name, part in model.named_modules() if (fill := _own_start(part))}
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[0] in own:
            continue
        if name.endswith("bias"):
            parameter.zero_()
        else:
            std = _std(name, parameter.shape, spec.num_layers)
            # Drawn on the CPU in float32, whatever the model's own device and type.
            values = torch.empty(parameter.shape, dtype=torch.float32)
            parameter.copy_(values.normal_(0.0, std, generator=generator))
    for fill in own.values():
        fill(generator)


def _own_start(module: nn.Module) -> Callable[[torch.Generator], None] | None:
    return getattr(module, "init_parameters", None)


def _std(name: str, shape: torch.Size, num_layers: int) -> float:
    if name == "embed.weight":
        return EMBEDDING_STD
    std = 1.0 / math.sqrt(shape[-1])
    return std / math.sqrt(2 * num_layers) if name.endswith(RESIDUAL_OUTPUTS) else std
