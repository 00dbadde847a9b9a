"""Rank 0's runner: hands every plan to the other ranks and computes its own part of it."""

from __future__ import annotations

import zlib

import numpy as np

from weft.engine.parallel.channel import Kind
from weft.engine.parallel.codec import PlanEncoder
from weft.engine.parallel.ranks import Ranks
from weft.sched.launch import Runner, run
from weft.sched.plan import StepPlan, StepResult


class LeadRunner:
    """Executes plans on all ranks at once; see ``weft.sched.launch.Runner``.

    Every rank draws every token itself, from the same gathered scores with the same counter-based
    numbers, so no token travels; a checksum of what was drawn does.
    """

    def __init__(self, runner: Runner, ranks: Ranks) -> None:
        self._runner = runner
        self._ranks = ranks
        self._encoder = PlanEncoder()

    def execute(self, plan: StepPlan) -> StepResult:
        """Compute one step on all ranks.

        Raises:
            RankError: a rank has failed; no further step can be computed.
        """
        frame = self._encoder.encode(plan)
        self._ranks.send_all(Kind.PLAN, frame)
        try:
            with self._ranks.group.in_step():
                result = run(self._runner, plan)
        except BaseException as error:
            # Also when interrupted: the others are in the middle of a step.
            broken = self._ranks.broken(error)
            if not isinstance(error, Exception):
                raise
            raise broken from error
        self._ranks.confirm(plan.step, checksum(result))
        return result

    def forget(self, ids: tuple[int, ...]) -> None:
        """Drop sequences on all ranks, or here only if the others are gone."""
        if self._ranks.failure is None:
            self.execute(StepPlan(step=-1, finished=ids))
        else:
            self._runner.forget(ids)


def checksum(result: StepResult) -> int:
    """Return a number that tells results apart: who drew what, and who failed."""
    numbers = [*result.errors, -1]
    for id, drawn in result.tokens.items():
        numbers += (id, *(sampled.token for sampled in drawn))
    return zlib.crc32(np.array(numbers, dtype=np.int64).tobytes())
