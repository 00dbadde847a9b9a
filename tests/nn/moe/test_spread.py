"""Ranks with sequences of their own and shared-out experts give what one process gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models.ranks import ThreadGroup, on_ranks
from weft.core.errors import ConfigError, UnsupportedError
from weft.dist.group import ProcessGroup
from weft.dist.launch import run_distributed
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.nn.moe.experts import Experts
from weft.nn.moe.layer import build_moe
from weft.nn.moe.spread import SpreadExperts, spread_experts
from weft.spec import ExpertShape, MLPSpec, ModelShape, MoESpec, RouterSpec

LENGTHS = (5, 3, 9, 2)  # of sequences; rank r of G has those whose number leaves r


class Ranks:
    """Adds to a group of threads what only these tests need."""

    def __init__(self, group: ThreadGroup) -> None:
        self.rank, self.size = group.rank, group.size
        self.all_gather = group.all_gather
        self._sum = group.all_reduce

    def reduce_scatter(self, rows: Tensor) -> Tensor:
        return self._sum(rows).chunk(self.size)[self.rank]


def model() -> Decoder:
    shape = ModelShape(
        family="qwen3_moe", dim=32, num_layers=2, num_heads=4, num_kv_heads=2, context_length=64,
        experts=ExpertShape(num_experts=4, expert_dim=16),
    )  # fmt: skip
    return Decoder(shape.build(50), seed=3).eval()


def sequences() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 50, (length,), generator=generator) for length in LENGTHS]


@torch.no_grad()
def hidden(decoder: Decoder, own: list[Tensor]) -> Tensor:
    return decoder(torch.cat(own), StepContext.packed([len(tokens) for tokens in own]))


def compare(group) -> tuple[Tensor, Tensor]:
    """Return a rank's hidden states and those of one process for the same sequences."""
    expected = hidden(model(), sequences()).split(LENGTHS)[group.rank :: group.size]
    spread = model()
    assert spread_experts(spread, group) == 2
    return hidden(spread, sequences()[group.rank :: group.size]), torch.cat(expected)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_with_sequences_of_their_own_compute_what_one_process_does(size):
    for got, expected in on_ranks(size, lambda group: compare(Ranks(group))):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def compare_in_process() -> None:
    torch.testing.assert_close(*compare(ProcessGroup.current()), rtol=1e-5, atol=1e-5)


@pytest.mark.dist
def test_two_processes_compute_what_one_does():
    run_distributed(compare_in_process, 2)


def test_a_rank_without_tokens_takes_part_and_experts_are_shared_out():
    torch.manual_seed(0)
    whole = Experts(4, 8, MLPSpec(6))
    x_TD, weights_TK = torch.randn(3, 8), torch.rand(3, 2)
    ids_TK = torch.tensor([[0, 3], [2, 4], [1, 0]])  # 4 is none

    def work(group):
        spread = SpreadExperts(whole, Ranks(group))
        assert spread.own.get_parameter("down").shape[0] == 2
        num_own = 3 if group.rank == 1 else 0
        return spread(x_TD[:num_own], ids_TK[:num_own], weights_TK[:num_own])

    empty, full = on_ranks(2, work)
    assert empty.shape == (0, 8)
    with torch.no_grad():
        torch.testing.assert_close(full, whole(x_TD, ids_TK, weights_TK))


def test_experts_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="4 experts do not divide among 3 ranks"):
        on_ranks(3, lambda group: SpreadExperts(Experts(4, 8, MLPSpec(6)), Ranks(group)))


@pytest.mark.parametrize(
    "spec",
    [
        MoESpec(4, 2, MLPSpec(6), RouterSpec(kind="expert_choice")),
        MoESpec(4, 1, MLPSpec(6), RouterSpec(kind="soft")),
        MoESpec(4, 2, MLPSpec(6), capacity_factor=1.0),
    ],
    ids=["expert_choice", "soft", "capacity"],
)
def test_mixtures_in_which_tokens_compete_are_refused(spec):
    with pytest.raises(UnsupportedError, match="tokens compete"):
        spread_experts(build_moe(8, spec, layer=0), ProcessGroup())
