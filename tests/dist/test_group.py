"""Collectives alone (world 1) and the worked values of four processes over gloo."""

import pytest
import torch

from weft.core.errors import ConfigError
from weft.dist.group import ProcessGroup
from weft.dist.launch import run_distributed


def test_alone_every_collective_is_the_identity():
    group = ProcessGroup.current()
    x = torch.arange(6.0).view(3, 2)
    assert (group.size, group.rank, group.is_first) == (1, 0, True)
    assert torch.equal(group.all_reduce(x.clone()), x)
    assert torch.equal(group.broadcast(x.clone()), x)
    assert torch.equal(group.all_gather(x), x.unsqueeze(0))
    assert torch.equal(group.reduce_scatter(x), x)
    assert torch.equal(group.all_to_all(x), x)
    group.barrier()


def test_alone_gathered_values_do_not_share_memory():
    x = torch.zeros(2)
    ProcessGroup().all_gather(x).fill_(1.0)
    assert x.tolist() == [0.0, 0.0]


def check_worked_values():
    group = ProcessGroup.current()
    rank = group.rank
    assert group.size == 4
    assert group.is_first == (rank == 0)
    assert group.all_reduce(torch.tensor([rank])).tolist() == [6]
    rows = torch.tensor([rank * 10 + i for i in range(4)])
    assert group.reduce_scatter(rows).tolist() == [[60, 64, 68, 72][rank]]
    assert group.all_to_all(rows).tolist() == [source * 10 + rank for source in range(4)]
    assert group.all_gather(torch.tensor([rank, -rank])).tolist() == [[r, -r] for r in range(4)]
    assert group.broadcast(torch.tensor([rank]), source=2).tolist() == [2]
    group.barrier()
    with pytest.raises(ConfigError, match="5 rows cannot be shared evenly by 4 processes"):
        group.reduce_scatter(torch.zeros(5))


def fail_on_last_rank():
    assert ProcessGroup.current().rank != 1, "the last rank failed"


@pytest.mark.dist
def test_four_processes_give_the_worked_values():
    run_distributed(check_worked_values, 4)


@pytest.mark.dist
def test_a_failure_in_one_process_is_raised_here_with_its_message():
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="the last rank failed"):
        run_distributed(fail_on_last_rank, 2)
