"""Named tensors from one process of a group to the others, bucket by bucket.

First what comes (``TensorInfo`` of every tensor, as JSON), then buffers of a fixed size, so that a
receiver holds one bucket more than its own tensors. P bytes of a bucket.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from weft.dist.group import ProcessGroup
from weft.dist.tensor_info import TensorInfo, buckets, total_bytes, views

DEFAULT_BUCKET_BYTES = 64 * 2**20

Bucket = list[tuple[str, Tensor]]


@dataclass(frozen=True)
class IncomingTensors:
    """What a sender has announced.

    Attributes:
        infos: Every tensor that comes, in order.
        buckets: The tensors themselves, valid until the next bucket is asked for; to be read to
            the end, as the sender sends all of them.
    """

    infos: tuple[TensorInfo, ...]
    buckets: Iterator[Bucket]


@torch.no_grad()
def send_tensors(
    tensors: Mapping[str, Tensor],
    group: ProcessGroup,
    *,
    bucket_bytes: int = DEFAULT_BUCKET_BYTES,
    device: torch.device | str = "cpu",
) -> None:
    """Broadcast tensors from this rank to all others, which call ``receive_tensors``.

    Args:
        tensors: By name; they may lie on any device.
        group: Who takes part.
        bucket_bytes: About so much is sent at once.
        device: Where buffers lie: the CPU for gloo, this rank's GPU for NCCL.
    """
    infos = [TensorInfo.of(name, tensor) for name, tensor in tensors.items()]
    header = json.dumps({"bucket_bytes": bucket_bytes, "tensors": infos}).encode()
    group.broadcast(torch.tensor([len(header)], device=device), group.rank)
    group.broadcast(torch.tensor(list(header), dtype=torch.uint8, device=device), group.rank)
    for run in buckets(infos, bucket_bytes):
        bucket_P = torch.zeros(total_bytes(run), dtype=torch.uint8, device=device)
        for name, view in views(bucket_P, run):
            view.copy_(tensors[name])
        group.broadcast(bucket_P, group.rank)


def receive_tensors(
    source: int, group: ProcessGroup, *, device: torch.device | str = "cpu"
) -> IncomingTensors:
    """Learn what rank ``source`` sends and return it with an iterator over its buckets."""
    length = group.broadcast(torch.zeros(1, dtype=torch.int64, device=device), source)
    header_P = torch.zeros(int(length), dtype=torch.uint8, device=device)
    header = json.loads(bytes(group.broadcast(header_P, source).tolist()))
    infos = tuple(TensorInfo(name, tuple(shape), dtype) for name, shape, dtype in header["tensors"])
    return IncomingTensors(infos, _receive(infos, header["bucket_bytes"], source, group, device))


def _receive(
    infos: tuple[TensorInfo, ...],
    bucket_bytes: int,
    source: int,
    group: ProcessGroup,
    device: torch.device | str,
) -> Iterator[Bucket]:
    for run in buckets(infos, bucket_bytes):
        bucket_P = torch.zeros(total_bytes(run), dtype=torch.uint8, device=device)
        yield list(views(group.broadcast(bucket_P, source), run))
