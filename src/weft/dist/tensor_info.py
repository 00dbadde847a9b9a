"""What is said about tensors before their numbers are sent: name, shape, element type.

A receiver that knows all of them can refuse before it writes anything, and knows how much comes.
Everything here is text and whole numbers, so that JSON carries it; nothing is ever unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from weft.core.errors import DataError

# Tensors in one buffer begin at multiples of this, so that any element type can be viewed.
ALIGNMENT_BYTES = 64


class TensorInfo(NamedTuple):
    """One tensor without its numbers.

    Attributes:
        name: What sender and receiver call it.
        shape: Its shape.
        dtype: Its element type, such as "bfloat16".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> TensorInfo:
        """Describe a tensor."""
        return cls(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    @property
    def torch_dtype(self) -> torch.dtype:
        """The element type.

        Raises:
            DataError: torch has none of this name.
        """
        found = getattr(torch, self.dtype, None)
        if not isinstance(found, torch.dtype):
            raise DataError(f"tensor {self.name!r} has the unknown element type {self.dtype!r}")
        return found

    @property
    def size_bytes(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.torch_dtype.itemsize


def aligned(size_bytes: int) -> int:
    """Round up to a multiple of ``ALIGNMENT_BYTES``."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def buckets(infos: Iterable[TensorInfo], bucket_bytes: int) -> Iterator[list[TensorInfo]]:
    """Cut a list into runs that fit ``bucket_bytes``; a larger tensor makes a run of its own.

    >>> tensors = [TensorInfo(name, (16,), "float32") for name in "abc"]
    >>> [[info.name for info in run] for run in buckets(tensors, 128)]
    [['a', 'b'], ['c']]
    """
    run: list[TensorInfo] = []
    used = 0
    for info in infos:
        size = aligned(info.size_bytes)
        if run and used + size > bucket_bytes:
            yield run
            run, used = [], 0
        run.append(info)
        used += size
    if run:
        yield run


def views(buffer_P: Tensor, infos: Iterable[TensorInfo]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that lie one after the other in a buffer of P bytes (uint8)."""
    start = 0
    for info in infos:
        end = start + info.size_bytes
        yield info.name, buffer_P[start:end].view(info.torch_dtype).view(info.shape)
        start += aligned(info.size_bytes)


def total_bytes(infos: Iterable[TensorInfo]) -> int:
    """Return the bytes of a buffer that holds them one after the other."""
    return sum(aligned(info.size_bytes) for info in infos)
