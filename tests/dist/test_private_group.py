"""Groups that are nobody's default: several at once, bound to this machine, and never stuck."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from weft.core.errors import UnsupportedError
from weft.dist.launch import start_processes
from weft.dist.private_group import CollectiveError, PrivateGroup


def group_of(store: dist.Store, rank: int, size: int, timeout_s: float = 20.0) -> PrivateGroup:
    return PrivateGroup(store, rank, size, device_type="cpu", timeout_s=timeout_s)


def test_alone_every_collective_is_the_identity():
    group = group_of(dist.HashStore(), 0, 1)
    x = torch.arange(6.0).view(2, 3).t()
    assert (group.size, group.rank) == (1, 0)
    assert torch.equal(group.all_reduce(x.clone()), x)
    assert torch.equal(group.all_gather(x), x.unsqueeze(0))
    assert torch.equal(group.broadcast(x.contiguous()), x)
    assert not dist.is_initialized()
    group.close()


def num_threads() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_closing_waits_for_the_threads_of_the_backend():
    """One of them that is left when Python ends may abort the process."""
    torch.ones(3).sum()
    num_before = num_threads()
    group = group_of(dist.HashStore(), 0, 1)
    group.all_gather(torch.ones(3))
    assert num_threads() > num_before
    group.close()
    assert num_threads() == num_before
    group.close()
    group.abort()
    with pytest.raises(CollectiveError, match="closed"):
        group.all_reduce(torch.ones(1))


def test_a_device_without_a_backend_is_refused():
    with pytest.raises(UnsupportedError, match="'meta'"):
        PrivateGroup(dist.HashStore(), 0, 1, device_type="meta", timeout_s=1.0)


def check_worked_values(rank: int, file: str) -> None:
    store = dist.FileStore(file, 2)
    first = group_of(dist.PrefixStore("a", store), rank, 2)
    second = group_of(dist.PrefixStore("b", store), rank, 2)
    for group in (first, second):
        assert group.all_reduce(torch.tensor([rank + 1.0])).tolist() == [3.0]
        assert group.all_gather(torch.tensor([rank, 7])).tolist() == [[0, 7], [1, 7]]
        assert group.broadcast(torch.tensor([rank]), source=1).tolist() == [1]
        if rank == 0:
            group.send(torch.tensor([4, 5]), 1)
        else:
            assert group.receive(torch.zeros(2, dtype=torch.int64), 0).tolist() == [4, 5]
    assert not dist.is_initialized()
    first.close()
    second.close()


def leave_rank_0_waiting(rank: int, file: str) -> None:
    group = group_of(dist.FileStore(file, 2), rank, 2, timeout_s=1.0)
    if rank == 1:
        time.sleep(2.5)
        return
    start_s = time.monotonic()
    with pytest.raises(CollectiveError):
        group.all_reduce(torch.ones(1))
    # Given up because of the time-out, not because the other one had left.
    assert time.monotonic() - start_s < 2.4


@pytest.mark.dist
@pytest.mark.parametrize("work", [check_worked_values, leave_rank_0_waiting])
def test_two_processes(work, tmp_path: Path):
    start_processes(work, (str(tmp_path / "store"),), 2)
