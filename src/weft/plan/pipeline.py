"""How long a pipeline takes: the schedule's own table put on a clock, and closed forms.

``timeline`` runs the table of ``weft.sched.pipeline`` that the trainer executes, with uneven
stages and the time between ranks. The closed forms hold for even stages and free communication
and are what the timeline is tested against.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from weft.core.errors import ConfigError
from weft.sched.pipeline import Action, Kind, PipelineSchedule

Duration = Callable[[int, Kind], float]
"""Seconds of one action: stage and kind."""


@dataclass(frozen=True)
class Timeline:
    """When everything happens.

    Attributes:
        step_s: From the first start to the last end.
        spans: Per rank, (action, start, end) in order.
    """

    step_s: float
    spans: tuple[tuple[tuple[Action, float, float], ...], ...]

    def busy_s(self, rank: int) -> float:
        """Return the seconds a rank works."""
        return sum(end - start for _, start, end in self.spans[rank])

    @property
    def bubble_s(self) -> float:
        """Seconds the busiest rank waits."""
        return self.step_s - max(self.busy_s(rank) for rank in range(len(self.spans)))

    @property
    def bubble_share(self) -> float:
        """Share of the step the busiest rank waits."""
        return self.bubble_s / self.step_s


def timeline(schedule: PipelineSchedule, duration: Duration, *, send_s: float = 0.0) -> Timeline:
    """Put a schedule on a clock.

    Args:
        schedule: The table.
        duration: Seconds of an action.
        send_s: Seconds a micro batch takes from rank to rank; the sender does not wait.

    Raises:
        ConfigError: the ranks wait for each other forever.
    """
    spans: list[list[tuple[Action, float, float]]] = [[] for _ in schedule.ranks]
    done: dict[Action, tuple[float, int]] = {}
    place, free = [0] * schedule.num_ranks, [0.0] * schedule.num_ranks
    waiting = list(range(schedule.num_ranks))
    while waiting:
        moved, still = False, []
        for rank in waiting:
            actions = schedule.ranks[rank]
            while place[rank] < len(actions):
                action = actions[place[rank]]
                ready = _ready(action, rank, done, schedule.num_stages, send_s)
                if ready is None:
                    break
                start = max(free[rank], ready)
                free[rank] = start + duration(action.stage, action.kind)
                done[_key(action)] = (free[rank], rank)
                spans[rank].append((action, start, free[rank]))
                place[rank] += 1
                moved = True
            if place[rank] < len(actions):
                still.append(rank)
        if still and not moved:
            stuck = {rank: schedule.ranks[rank][place[rank]] for rank in still}
            raise ConfigError(f"the schedule {schedule.name!r} never ends: {stuck} wait")
        waiting = still
    return Timeline(max(free), tuple(tuple(span) for span in spans))


def _key(action: Action) -> Action:
    """Backward passes are awaited alike, whole or split."""
    return action._replace(kind="B") if action.kind == "BW" else action


def _ready(
    action: Action, rank: int, done: dict[Action, tuple[float, int]], num_stages: int, send_s: float
) -> float | None:
    """Return when an action may start, or none while something it needs is not done."""
    stage, micro, kind = action
    needs: list[Action] = []
    if kind == "F" and stage > 0:
        needs = [Action(stage - 1, micro, "F")]
    elif kind in ("B", "BW"):
        needs = [Action(stage, micro, "F")]
        if stage < num_stages - 1:
            needs.append(Action(stage + 1, micro, "B"))
    elif kind == "W":
        needs = [Action(stage, micro, "B")]
    ready = 0.0
    for need in needs:
        found = done.get(need)
        if found is None:
            return None
        end, where = found
        ready = max(ready, end + (send_s if where != rank else 0.0))
    return ready


def bubble_ratio(num_ranks: int, num_micro: int, num_chunks: int = 1) -> float:
    """Return bubble over ideal time of 1F1B and GPipe, (p − 1)/(v·m) (arXiv:2104.04473).

    >>> bubble_ratio(8, 32, 4)
    0.0546875
    """
    return (num_ranks - 1) / (num_chunks * num_micro)


def bubble_share(num_ranks: int, num_micro: int, num_chunks: int = 1) -> float:
    """Return bubble over the whole step, (p − 1)/(v·m + p − 1).

    >>> round(bubble_share(4, 32), 4)
    0.0857
    """
    return (num_ranks - 1) / (num_chunks * num_micro + num_ranks - 1)


def zero_bubble_seconds(
    num_ranks: int, forward_s: float, backward_s: float, weight_s: float
) -> float:
    """Return the bubble of zero-bubble schedules, (p − 1)(F + B − 2W) (arXiv:2401.10241).

    With B the input part it is what ZB-H2 reaches; with B the whole backward pass it is that of
    ZB-H1, as DeepSeek-V3 (arXiv:2412.19437, table 2) writes it.
    """
    return (num_ranks - 1) * (forward_s + backward_s - 2 * weight_s)


def dual_pipe_seconds(num_ranks: int, pair_s: float, backward_s: float, weight_s: float) -> float:
    """Return the bubble of DualPipe, (p/2 − 1)(F&B + B − 3W) (arXiv:2412.19437, table 2).

    >>> dual_pipe_seconds(16, 3.0, 2.0, 1.0)
    14.0
    """
    return (num_ranks / 2 - 1) * (pair_s + backward_s - 3 * weight_s)


def even_stages(num_layers: int, num_stages: int) -> tuple[int, ...]:
    """Return layers per stage, the rest given to the middle stages.

    The first and last stage carry the embedding and the head, so they get no extra layer.

    >>> even_stages(126, 8)
    (15, 16, 16, 16, 16, 16, 16, 15)
    """
    share, rest = divmod(num_layers, num_stages)
    middle = sorted(range(num_stages), key=lambda stage: abs(2 * stage - (num_stages - 1)))
    extra = set(middle[:rest])
    return tuple(share + (stage in extra) for stage in range(num_stages))
