"""``Ranks``: what rank 0 knows of the others. It starts, feeds, watches and ends them.

A rank that dies, raises, or stays silent ends the whole group: what the others have in their
caches no longer belongs together. Rank 0 lives on and says which rank it was and why.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
import weakref
from collections.abc import Mapping, Sequence

from weft.core.errors import ResourceError, WeftError
from weft.dist.private_group import CollectiveError
from weft.engine.parallel.channel import Channel, ChannelClosed, ChannelTimeout, Frame, Kind
from weft.engine.parallel.lockstep import Lockstep

# A rank that breaks a step is heard of within this time.
_GRACE_S = 3.0
_STOP_S = 5.0
_WATCH_S = 0.2
_FROM_OTHERS = (CollectiveError, ChannelClosed, ChannelTimeout)


class RankError(WeftError):
    """A rank has died, raised, or not answered. ``rank`` says which; none if nobody knows."""

    def __init__(self, rank: int | None, reason: str) -> None:
        who = "a rank" if rank is None else f"rank {rank}"
        super().__init__(f"{who} {reason}", fix="restart the engine")
        self.rank = rank


class _State:
    """What the watching thread shares with ``Ranks``, which it must not keep alive."""

    def __init__(
        self,
        channels: Mapping[int, Channel],
        processes: Mapping[int, subprocess.Popen],
        group: Lockstep,
        timeout_s: float,
    ) -> None:
        self.channels, self.processes, self.group = dict(channels), dict(processes), group
        self.timeout_s = timeout_s
        self.failure: RankError | None = None
        self.step_start_s: float | None = None
        self.ended = threading.Event()
        self._lock = threading.Lock()

    def fail(self, failure: RankError) -> RankError:
        """Note the first failure, and let nobody wait any longer; returns the first one."""
        with self._lock:
            if self.failure is not None:
                return self.failure
            self.failure = failure
        self.ended.set()
        self.group.group.abort()
        for process in self.processes.values():
            process.kill()
        return failure


class Ranks:
    """The other ranks of an engine, seen from rank 0.

    Args:
        channels: By rank.
        processes: By rank, those that this process has started.
        group: All ranks.
        timeout_s: Longest step.

    Attributes:
        group: All ranks.
    """

    def __init__(
        self,
        channels: Mapping[int, Channel],
        processes: Mapping[int, subprocess.Popen],
        group: Lockstep,
        timeout_s: float,
    ) -> None:
        self.group = group
        self._state = _State(channels, processes, group, timeout_s)
        self._close = weakref.finalize(self, _end, self._state)
        threading.Thread(target=_watch, args=(self._state,), name="weft-ranks", daemon=True).start()

    @property
    def failure(self) -> RankError | None:
        """What has broken the group; none while it is whole."""
        return self._state.failure

    def send_all(self, kind: Kind, payload: bytes = b"") -> None:
        """Send a frame to every other rank.

        Raises:
            RankError: the group is broken.
            ResourceError: the group was closed.
        """
        if self._state.failure is not None:
            raise self._state.failure
        if not self._close.alive:
            raise ResourceError("this engine is closed", fix="load it again")
        self._state.step_start_s = time.monotonic()
        for channel in self._state.channels.values():
            try:
                channel.send(kind, payload)
            except ChannelClosed as error:
                raise self.broken(error) from error

    def confirm(self, step: int, checksum: int) -> None:
        """Wait until every rank has executed the step, and has drawn what rank 0 has.

        Raises:
            RankError: one has not; the group is broken.
        """
        for rank, channel in self._state.channels.items():
            try:
                frame = channel.receive(self._state.timeout_s)
            except (ChannelClosed, ChannelTimeout) as error:
                raise self.broken(error) from error
            if frame.kind is not Kind.DONE:
                raise self._state.fail(_failure(rank, frame))
            if (frame.fields["step"], frame.fields["checksum"]) != (step, checksum):
                raise self._state.fail(RankError(rank, f"has drawn other tokens in step {step}"))
        self._state.step_start_s = None

    def broken(self, error: BaseException) -> RankError:
        """Find out which rank has broken a step that raised ``error`` here, and end the group."""
        self._state.step_start_s = None
        return self._state.fail(_blame(self._state, error))

    def close(self) -> None:
        """End the other ranks and wait for them; idempotent."""
        self._close()


def _watch(state: _State) -> None:
    """Notice ranks that die between steps, and steps that do not end."""
    while not state.ended.wait(_WATCH_S):
        start_s = state.step_start_s
        dead = [rank for rank, channel in state.channels.items() if channel.is_closed()]
        if dead and not state.ended.is_set():
            state.fail(RankError(dead[0], _death(state, dead[0])))
        elif start_s is not None and time.monotonic() - start_s > state.timeout_s + _GRACE_S:
            state.fail(RankError(None, f"has not ended a step within {state.timeout_s:g} s"))


def _blame(state: _State, error: BaseException) -> RankError:
    """Ask the ranks; one that died explains the others' broken connections."""
    reports: dict[int, RankError] = {}
    end_s = time.monotonic() + _GRACE_S
    waiting = dict(state.channels)
    while waiting and time.monotonic() < end_s:
        for rank, channel in list(waiting.items()):
            found = _report(state, rank, channel)
            if found is not None:
                reports[rank] = found[0]
                del waiting[rank]
                if found[1]:
                    return found[0]
        if not isinstance(error, _FROM_OTHERS):
            break  # rank 0 itself has raised; the others only wait for it
    if not isinstance(error, _FROM_OTHERS):
        return RankError(0, f"raised {type(error).__name__}: {error}")
    if reports:
        return next(iter(reports.values()))
    silent = next(iter(waiting)) if len(waiting) == 1 else None
    return RankError(silent, f"did not answer within {state.timeout_s:g} s ({error.message})")


def _report(state: _State, rank: int, channel: Channel) -> tuple[RankError, bool] | None:
    """Return what a rank says and whether it is the cause; none if it says nothing yet."""
    try:
        while True:
            frame = channel.receive(timeout_s=0.05)
            if frame.kind is Kind.FAILED:
                return _failure(rank, frame), not frame.fields["follows"]
    except ChannelTimeout:
        return None
    except ChannelClosed:
        return RankError(rank, _death(state, rank)), True


def _failure(rank: int, frame: Frame) -> RankError:
    return RankError(rank, f"raised {frame.fields['reason']}")


def _death(state: _State, rank: int) -> str:
    process = state.processes.get(rank)
    if process is None:
        return "died"
    try:
        return f"died (exit code {process.wait(1.0)})"
    except subprocess.TimeoutExpired:
        return "closed its connection"


def _end(state: _State) -> None:
    """Stop the ranks: ask, then insist. This process leaves the group last."""
    state.ended.set()
    for channel in state.channels.values():
        with contextlib.suppress(ChannelClosed):
            channel.send(Kind.STOP)
    end_s = time.monotonic() + _STOP_S
    for channel in state.channels.values():
        _await_end(channel, end_s)
        channel.close()
    stop_processes(list(state.processes.values()), timeout_s=end_s - time.monotonic())
    state.group.close()


def _await_end(channel: Channel, end_s: float) -> None:
    """Wait until a rank has left the group and closed its end."""
    with contextlib.suppress(ChannelClosed, ChannelTimeout):
        while True:
            channel.receive(max(0.0, end_s - time.monotonic()))


def stop_processes(processes: Sequence[subprocess.Popen], *, timeout_s: float) -> None:
    """Wait for processes to end, and kill those that do not; none is left behind."""
    end_s = time.monotonic() + timeout_s
    for process in processes:
        try:
            process.wait(max(0.0, end_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
