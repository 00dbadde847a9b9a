"""Reproducible arithmetic: fixed threads and only deterministic operations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def arithmetic(*, deterministic: bool, num_threads: int | None) -> Iterator[None]:
    """Apply both settings inside the block and put the old ones back afterwards.

    The number of threads decides how sums are split, so bit-identical runs need the same one.
    """
    old_threads = torch.get_num_threads()
    old_mode = torch.are_deterministic_algorithms_enabled()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(deterministic or old_mode)
    try:
        yield
    finally:
        torch.set_num_threads(old_threads)
        torch.use_deterministic_algorithms(old_mode)
