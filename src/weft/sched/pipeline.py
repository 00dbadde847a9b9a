"""Pipeline schedules as data: what every rank does, in order.

The trainer executes such a table and the planner times it, so neither can drift from the other.
A model is cut into ``num_stages`` stages; stage s runs on the rank whose list has it. ``F`` is a
forward pass of one micro batch through one stage, ``BW`` its whole backward pass; schedules that
split it use ``B`` for the gradient of the input and ``W`` for that of the weights.

- GPipe: Huang et al. 2019, arXiv:1811.06965.
- 1F1B: Narayanan et al. 2019 (PipeDream-flush), arXiv:2104.04473.
- Interleaved 1F1B: Narayanan et al. 2021, arXiv:2104.04473, section 2.2.
- ZB-H1: Qi et al. 2023, arXiv:2401.10241.
- DualPipe: DeepSeek-V3 report, arXiv:2412.19437, section 3.2.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from weft.core.errors import ConfigError, did_you_mean

Kind = Literal["F", "B", "W", "BW"]


class Action(NamedTuple):
    """One piece of work.

    Attributes:
        stage: Part of the model, 0 .. num_stages - 1.
        micro: Micro batch.
        kind: Forward, input gradient, weight gradient, or both gradients.
    """

    stage: int
    micro: int
    kind: Kind


@dataclass(frozen=True)
class PipelineSchedule:
    """What every rank does.

    Attributes:
        name: The rule.
        num_stages: Parts of the model.
        num_micro: Micro batches of a step.
        ranks: Actions of each rank in order.
    """

    name: str
    num_stages: int
    num_micro: int
    ranks: tuple[tuple[Action, ...], ...]

    @property
    def num_ranks(self) -> int:
        return len(self.ranks)

    def in_flight(self, rank: int) -> int:
        """Return the most forward passes of a rank whose activations are held at once."""
        held = most = 0
        for action in self.ranks[rank]:
            held += {"F": 1, "B": 0, "W": -1, "BW": -1}[action.kind]
            most = max(most, held)
        return most


def build(name: str, num_ranks: int, num_micro: int, *, num_chunks: int = 1) -> PipelineSchedule:
    """Return a schedule by name: "gpipe", "1f1b", "interleaved", "zb-h1" or "dualpipe".

    Args:
        name: The rule.
        num_ranks: Devices of the pipeline.
        num_micro: Micro batches of a step.
        num_chunks: Stages per rank, for "interleaved" only.

    Raises:
        ConfigError: an unknown name, or numbers the rule cannot schedule.
    """
    if name not in _BUILDERS:
        raise ConfigError(
            f"no pipeline schedule is called {name!r}", fix=did_you_mean(name, _BUILDERS)
        )
    if min(num_ranks, num_micro, num_chunks) < 1:
        raise ConfigError(
            f"{num_ranks} ranks, {num_micro} micro batches, {num_chunks} chunks",
            fix="give at least one of each",
        )
    if num_chunks > 1 and name != "interleaved":
        raise ConfigError(f"{name!r} has one stage per rank", fix='use "interleaved" for more')
    return _BUILDERS[name](num_ranks, num_micro, num_chunks)


def _gpipe(num_ranks: int, num_micro: int, _: int) -> PipelineSchedule:
    ranks = tuple(
        (
            *(Action(rank, micro, "F") for micro in range(num_micro)),
            *(Action(rank, micro, "BW") for micro in range(num_micro)),
        )
        for rank in range(num_ranks)
    )
    return PipelineSchedule("gpipe", num_ranks, num_micro, ranks)


def _one_forward_one_backward(num_ranks: int, num_micro: int, _: int) -> PipelineSchedule:
    ranks = []
    for rank in range(num_ranks):
        warm_up = min(num_ranks - rank - 1, num_micro)
        forward = [Action(rank, micro, "F") for micro in range(num_micro)]
        backward = [Action(rank, micro, "BW") for micro in range(num_micro)]
        ranks.append(_alternate(forward, backward, warm_up))
    return PipelineSchedule("1f1b", num_ranks, num_micro, tuple(ranks))


def _interleaved(num_ranks: int, num_micro: int, num_chunks: int) -> PipelineSchedule:
    if num_micro % num_ranks:
        raise ConfigError(
            f"{num_micro} micro batches do not divide by {num_ranks} ranks",
            fix="interleaving takes micro batches in groups of as many as there are ranks",
        )
    total, group = num_micro * num_chunks, num_ranks * num_chunks
    order = [
        (index % group // num_ranks, index // group * num_ranks + index % num_ranks)
        for index in range(total)
    ]
    ranks = []
    for rank in range(num_ranks):
        warm_up = min((num_ranks - rank - 1) * 2 + (num_chunks - 1) * num_ranks, total)
        forward = [Action(chunk * num_ranks + rank, micro, "F") for chunk, micro in order]
        backward = [
            Action((num_chunks - 1 - chunk) * num_ranks + rank, micro, "BW")
            for chunk, micro in order
        ]
        ranks.append(_alternate(forward, backward, warm_up))
    return PipelineSchedule("interleaved", group, num_micro, tuple(ranks))


def _alternate(forward: list[Action], backward: list[Action], warm_up: int) -> tuple[Action, ...]:
    """Forward passes first, then one of each in turn, then the rest of the backward passes."""
    actions = forward[:warm_up]
    for one_forward, one_backward in zip(forward[warm_up:], backward, strict=False):
        actions += [one_forward, one_backward]
    return (*actions, *backward[len(forward) - warm_up :])


def _zero_bubble(num_ranks: int, num_micro: int, _: int) -> PipelineSchedule:
    """1F1B whose weight gradients wait: rank r delays them by r micro batches, fills gaps later."""
    ranks = []
    for rank in range(num_ranks):
        warm_up = min(num_ranks - rank, num_micro)
        actions = [Action(rank, micro, "F") for micro in range(warm_up)]
        weights = 0
        for micro in range(num_micro):
            actions.append(Action(rank, micro, "B"))
            if micro >= rank:
                actions.append(Action(rank, weights, "W"))
                weights += 1
            if warm_up + micro < num_micro:
                actions.append(Action(rank, warm_up + micro, "F"))
        actions += [Action(rank, micro, "W") for micro in range(weights, num_micro)]
        ranks.append(tuple(actions))
    return PipelineSchedule("zb-h1", num_ranks, num_micro, tuple(ranks))


def _dual_pipe(num_ranks: int, num_micro: int, _: int) -> PipelineSchedule:
    """Micro batches enter at both ends; every rank holds stage r and stage p - 1 - r."""
    if num_ranks % 2 or num_micro % 2 or num_micro < 2 * num_ranks:
        raise ConfigError(
            f"{num_ranks} ranks and {num_micro} micro batches",
            fix="DualPipe needs even numbers and at least twice as many micro batches as ranks",
        )
    ranks = tuple(
        tuple(_DualRank(rank, num_ranks, num_micro).actions()) for rank in range(num_ranks)
    )
    return PipelineSchedule("dualpipe", num_ranks, num_micro, ranks)


class _DualRank:
    """The order of one rank; direction 0 is the one whose earlier half it belongs to."""

    def __init__(self, rank: int, num_ranks: int, num_micro: int) -> None:
        self.near = min(rank, num_ranks - 1 - rank)
        self.middle = num_ranks // 2 - self.near - 1
        self.half = num_micro // 2
        self.num_ranks = num_ranks
        first = 0 if rank < num_ranks // 2 else self.half
        self.base = (first, self.half - first)
        self.stage = (self.near, num_ranks - 1 - self.near)
        self.next: dict[tuple[str, int], int] = {}
        self.waiting: list[Action] = []
        self.done: list[Action] = []

    def actions(self) -> list[Action]:
        middle, near = self.middle, self.near
        for _ in range(2 * middle):
            self._forward(0)
        for _ in range(near + 1):
            self._forward(0)
            self._forward(1)
        for _ in range(middle):
            self._backward(1, split=True)
            self._weight()
            self._forward(1)
        for _ in range(self.half - self.num_ranks + near + 1):
            self._forward(0)
            self._backward(1)
            self._forward(1)
            self._backward(0)
        for _ in range(middle):
            self._backward(1)
            self._forward(1)
            self._backward(0)
        split = False
        for index in range(near + 1):
            split = split or (index == (near + 1) // 2 and near % 2 == 1)
            self._backward(1, split=split)
            split = split or (index == (near + 1) // 2 and near % 2 == 0)
            self._backward(0, split=split)
        for _ in range(middle):
            self._weight()
            self._backward(0, split=True)
        while self.waiting:
            self._weight()
        return self.done

    def _take(self, kind: str, direction: int) -> tuple[int, int]:
        count = self.next.get((kind, direction), 0)
        self.next[kind, direction] = count + 1
        return self.stage[direction], self.base[direction] + count

    def _forward(self, direction: int) -> None:
        stage, micro = self._take("F", direction)
        self.done.append(Action(stage, micro, "F"))

    def _backward(self, direction: int, *, split: bool = False) -> None:
        stage, micro = self._take("B", direction)
        self.done.append(Action(stage, micro, "B" if split else "BW"))
        if split:
            self.waiting.append(Action(stage, micro, "W"))

    def _weight(self) -> None:
        if self.waiting:
            self.done.append(self.waiting.pop(0))


_BUILDERS: dict[str, Callable[[int, int, int], PipelineSchedule]] = {
    "gpipe": _gpipe,
    "1f1b": _one_forward_one_backward,
    "interleaved": _interleaved,
    "zb-h1": _zero_bubble,
    "dualpipe": _dual_pipe,
}
