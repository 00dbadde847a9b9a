"""Where a model's weights come from, as often as wanted.

An engine that changes weights while it runs holds a source and calls ``load_into`` again. Random
weights serve to measure speed and memory of a model whose files are not there.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

import torch

from weft.checkpoint.hf import load_into, load_spec
from weft.checkpoint.memory import materialise
from weft.checkpoint.transfer import LoadReport
from weft.models.decoder import Decoder
from weft.models.init import init_weights
from weft.spec import ModelSpec


class WeightSource(Protocol):
    """Weights of one specification.

    Attributes:
        spec: The model they belong to.
        num_loads: How often they have been loaded.
    """

    spec: ModelSpec
    num_loads: int

    def load_into(self, model: Decoder) -> LoadReport:
        """Replace the weights of a model in place."""
        ...


class FolderSource:
    """The weights in a checkpoint folder, read anew at every load."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.spec = load_spec(folder)
        self.num_loads = 0

    def load_into(self, model: Decoder) -> LoadReport:
        """Read the folder as it is now."""
        report = load_into(model, self.folder)
        self.num_loads += 1
        return report


class RandomSource:
    """Random weights; the first load of equal seeds gives equal numbers, each further load others.

    Args:
        spec: The model.
        seed: Of the first load; load ``n`` uses ``seed + n``.
    """

    def __init__(self, spec: ModelSpec, *, seed: int = 0) -> None:
        self.spec = spec
        self.seed = seed
        self.num_loads = 0

    def load_into(self, model: Decoder) -> LoadReport:
        """Initialise as for training."""
        start_s = time.perf_counter()
        init_weights(model, self.spec, seed=self.seed + self.num_loads)
        self.num_loads += 1
        tensors = model.state_dict().values()
        return LoadReport(
            num_tensors=len(tensors),
            num_files=0,
            size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            seconds=time.perf_counter() - start_s,
        )


def build_model(
    source: WeightSource,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Decoder:
    """Return a new model with the weights of a source."""
    model = Decoder(source.spec, device="meta", dtype=dtype)
    materialise(model, device)
    source.load_into(model)
    return model
