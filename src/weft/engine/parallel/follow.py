"""The other ranks: execute what rank 0 has scheduled until it says stop or is gone."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from weft.dist.private_group import CollectiveError
from weft.engine.core import EngineCore
from weft.engine.parallel.channel import Channel, ChannelClosed, Kind
from weft.engine.parallel.codec import PlanDecoder
from weft.engine.parallel.lead import checksum
from weft.engine.parallel.lockstep import Lockstep
from weft.sched.launch import run
from weft.sched.plan import NewSequence, StepPlan, StepResult

_WATCH_S = 0.5
_PATIENCE_S = 2.0


class Follower:
    """One rank but the first.

    Its engine core has a scheduler that is never asked: what counts is that runner, caches and
    grammars are built exactly as on rank 0.
    """

    def __init__(self, core: EngineCore, channel: Channel, group: Lockstep) -> None:
        self._core = core
        self._channel = channel
        self._group = group
        self._decoder = PlanDecoder()

    def serve(self) -> None:
        """Execute plans until told to stop, or until rank 0 is gone.

        An exception is reported to rank 0 and ends this rank: it has left the step.
        """
        self._channel.send(Kind.READY)
        try:
            while (frame := self._channel.receive()).kind is not Kind.STOP:
                plan = self._decoder.decode(frame.payload)
                result = self.execute(plan)
                self._channel.send_fields(Kind.DONE, step=plan.step, checksum=checksum(result))
        except ChannelClosed:
            return
        except Exception as error:
            report(self._channel, error)
            raise
        finally:
            self._group.close()

    def execute(self, plan: StepPlan) -> StepResult:
        """Do what rank 0 does with the plan."""
        for new in plan.new:
            self._prepare(new)
        with self._group.in_step():
            result = run(self._core.runner, plan)
        for id in result.tokens:
            # Rank 0 hands the prompt's log-probabilities out now and scores them no more.
            self._core.runner.prompts.remove(id)
        return result

    def _prepare(self, new: NewSequence) -> None:
        """Compile a grammar as rank 0 has done; both draw by it."""
        if new.sampling.structured is not None:
            assert self._core.grammars is not None, "rank 0 refuses structures without a tokenizer"
            grammar = self._core.grammars.start(new.sampling.structured)
            self._core.runner.table.grammars.prepare(new.request_id, grammar)


def report(channel: Channel, error: Exception) -> None:
    """Tell rank 0 why this rank ends, if it is still there."""
    reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    try:
        # One whose collective broke has only noticed that another one is gone.
        channel.send_fields(Kind.FAILED, reason=reason, follows=isinstance(error, CollectiveError))
    except ChannelClosed:
        return


@contextlib.contextmanager
def ending_with_rank_0(channel: Channel) -> Iterator[None]:
    """End this process when rank 0 is gone, whatever it is waiting for meanwhile."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_WATCH_S):
            # A clean end needs what may be stuck, such as a collective on a device.
            if channel.is_closed() and not done.wait(_PATIENCE_S):
                os._exit(1)

    thread = threading.Thread(target=watch, name="weft-rank-0", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
