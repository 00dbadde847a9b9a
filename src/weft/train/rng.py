"""The state of every random generator a training run may draw from, as tensors."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


def capture_random_state() -> dict[str, Tensor]:
    """Return the states of torch's generators (CPU and each CUDA device) and of Python's."""
    version, words, gauss = random.getstate()
    state = {
        "torch_cpu": torch.get_rng_state(),
        "python_words": torch.tensor(words, dtype=torch.int64),
        # NaN stands for "no Gaussian number is waiting".
        "python_gauss": torch.tensor(float("nan") if gauss is None else gauss, dtype=torch.float64),
        "python_version": torch.tensor(version, dtype=torch.int64),
    }
    if torch.cuda.is_available():
        for index, device_state in enumerate(torch.cuda.get_rng_state_all()):
            state[f"torch_cuda_{index}"] = device_state
    return state


def restore_random_state(state: Mapping[str, Tensor]) -> None:
    """Put back what ``capture_random_state`` returned; CUDA devices that are gone are left out."""
    torch.set_rng_state(state["torch_cpu"])
    gauss = float(state["python_gauss"])
    words = tuple(state["python_words"].tolist())
    random.setstate((int(state["python_version"]), words, None if gauss != gauss else gauss))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if f"torch_cuda_{index}" in state:
                torch.cuda.set_rng_state(state[f"torch_cuda_{index}"], index)


def seed_random_state(seed: int) -> None:
    """Start every generator anew from one seed."""
    torch.manual_seed(seed)
    random.seed(seed)


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Leave the random state as it was found, so that sampling does not change training."""
    state = capture_random_state()
    try:
        yield
    finally:
        restore_random_state(state)
