"""Step times of weft's own engine on this machine, learnt from a recorded run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weft.plan.simulator.replay import Entry, RecordingScheduler
from weft.plan.workload.arrival import Arrival
from weft.spec import Request, SamplingParams

if TYPE_CHECKING:
    from weft.engine.config import EngineConfig
    from weft.models.decoder import Decoder
    from weft.sched.config import SchedulerConfig
    from weft.sched.loop import Clock


class BusyClock:
    """Processor time of this process; waiting costs none and passes at once.

    On a machine shared with others it is steadier than wall-clock time, and a run takes no longer
    than its work.
    """

    def __init__(self) -> None:
        self._skipped_s = 0.0

    def now(self) -> float:
        """Return seconds since an arbitrary origin."""
        return time.process_time() + self._skipped_s

    def sleep_until(self, time_s: float) -> None:
        """Let the time until ``time_s`` pass at once."""
        self._skipped_s += max(0.0, time_s - self.now())


@dataclass(frozen=True)
class ServedRequest:
    """One request of a real run.

    Attributes:
        ttft_s: Arrival to first token.
        tpot_s: Mean time per token after the first.
    """

    ttft_s: float
    tpot_s: float


@dataclass(frozen=True)
class RecordedRun:
    """A real run.

    Attributes:
        requests: In order of arrival.
        journal: What the scheduler did.
        scheduler: Its configuration.
    """

    requests: tuple[ServedRequest, ...]
    journal: tuple[Entry, ...]
    scheduler: SchedulerConfig


def run_engine(
    model: Decoder, config: EngineConfig, arrivals: Sequence[Arrival], clock: Clock
) -> RecordedRun:
    """Serve arrivals with a fresh engine, greedily and to their full length."""
    from weft.engine.core import EngineCore

    core = EngineCore(model, None, config, clock=clock)
    recorder = RecordingScheduler(core.scheduler.config, eos_ids=core.eos_ids)
    core.scheduler = core.loop.scheduler = recorder
    start_s = clock.now()
    waiting = deque(_requests(model.spec.vocab_size, arrivals, start_s))
    first_s: dict[str, float] = {}
    last_s: dict[str, float] = {}
    while waiting or core.has_work:
        while waiting and waiting[0].arrival_s <= clock.now():
            core.submit(waiting.popleft())
        if not core.has_work:
            clock.sleep_until(waiting[0].arrival_s)
            continue
        for delta in core.step():
            if delta.token is not None:
                first_s.setdefault(delta.request_id, clock.now())
                last_s[delta.request_id] = clock.now()
    served = tuple(
        ServedRequest(
            first_s[str(index)] - start_s - arrival.time_s,
            (last_s[str(index)] - first_s[str(index)]) / max(1, arrival.num_output_tokens - 1),
        )
        for index, arrival in enumerate(arrivals)
    )
    return RecordedRun(served, tuple(recorder.journal), recorder.config)


def _requests(vocab_size: int, arrivals: Sequence[Arrival], start_s: float) -> list[Request]:
    rng = np.random.default_rng(0)
    return [
        Request(
            str(index),
            tuple(rng.integers(0, vocab_size, arrival.num_prompt_tokens).tolist()),
            SamplingParams(temperature=0.0, max_tokens=arrival.num_output_tokens, ignore_eos=True),
            arrival_s=start_s + arrival.time_s,
        )
        for index, arrival in enumerate(arrivals)
    ]
