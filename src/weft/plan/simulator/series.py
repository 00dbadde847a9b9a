"""Queues over time, for plots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import ConfigError
from weft.plan.simulator.result import Simulation, StepRecord

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class QueueSeries:
    """Means over equal intervals; one number per interval.

    Attributes:
        time_s: Middle of each interval.
        num_running: Sequences in steps, over all replicas.
        num_waiting: Requests beside them.
        kv_usage: Fraction of the blocks in use, mean over replicas.
        tokens_per_s: Computed tokens, prompts included.
    """

    time_s: Floats
    num_running: Floats
    num_waiting: Floats
    kv_usage: Floats
    tokens_per_s: Floats


def queue_series(simulation: Simulation, *, num_points: int = 200) -> QueueSeries:
    """Average the steps of a simulation over ``num_points`` intervals.

    Raises:
        ConfigError: the simulation kept no steps.
    """
    steps = simulation.steps
    if not steps or num_points < 1:
        raise ConfigError(
            f"{len(steps)} steps give no series of {num_points} points",
            fix="simulate with keep_steps=True and ask for at least one point",
        )
    edges = np.linspace(min(s.start_s for s in steps), max(s.end_s for s in steps), num_points + 1)
    width = edges[1] - edges[0]
    cover = _Cover(steps, edges)
    return QueueSeries(
        time_s=(edges[1:] + edges[:-1]) / 2,
        num_running=cover.total([float(s.num_sequences) for s in steps]) / width,
        num_waiting=cover.total([float(s.num_waiting) for s in steps]) / width,
        kv_usage=cover.total([s.kv_usage for s in steps]) / width / len(simulation.replicas),
        tokens_per_s=cover.total([s.num_tokens / (s.end_s - s.start_s) for s in steps]) / width,
    )


class _Cover:
    """How much of each step lies before each edge."""

    def __init__(self, steps: tuple[StepRecord, ...], edges: Floats) -> None:
        self._start_s = np.array([step.start_s for step in steps])
        self._end_s = np.array([step.end_s for step in steps])
        self._edges = edges

    def total(self, heights: list[float]) -> Floats:
        """Integrate heights that hold while their steps run over each interval."""
        before = np.zeros(len(self._edges))
        for start_s, end_s, height in zip(self._start_s, self._end_s, heights, strict=True):
            before += height * np.clip(self._edges - start_s, 0.0, end_s - start_s)
        return np.diff(before)
