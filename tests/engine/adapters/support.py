"""Random adapters of the engine tests' tiny models."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import torch

from tests.engine.features.support import tiny
from weft.adapt import lora
from weft.adapt.adapter import Adapter
from weft.adapt.lora import LoRAConfig
from weft.engine.adapters.config import AdapterConfig
from weft.models.decoder import Decoder

ROOM = AdapterConfig(max_loaded=4, max_rank=4)


@functools.cache
def adapted(
    seed: int,
    kind: str = "dense",
    rank: int = 4,
    targets: Sequence[str] = LoRAConfig.targets,
    size: float = 0.3,
) -> Decoder:
    """Return a copy of a tiny model with random pairs in its layers."""
    model = copy.deepcopy(tiny(kind))
    lora.inject(model, LoRAConfig(rank=rank, targets=tuple(targets)))
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in lora.adapter_parameters(model):
        parameter.data = size * torch.randn(parameter.shape, generator=generator)
    return model


def adapter(
    seed: int,
    kind: str = "dense",
    rank: int = 4,
    targets: Sequence[str] = LoRAConfig.targets,
    size: float = 0.3,
) -> Adapter:
    """Return the pairs of ``adapted`` with the same arguments."""
    return lora.adapter_of(adapted(seed, kind, rank, tuple(targets), size))
