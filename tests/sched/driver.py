"""Random traffic against scheduler, KV manager and fake runner, with a model of what must hold."""

from __future__ import annotations

import random

from tests.sched.fake_runner import FakeRunner, fold_all, next_token
from weft.core.errors import QueueFullError
from weft.sched.config import SchedulerConfig
from weft.sched.loop import ServingLoop, VirtualClock
from weft.sched.plan import SequenceUpdate, StepPlan
from weft.sched.scheduler import Scheduler
from weft.spec.request import FinishReason, Request
from weft.spec.sampling import SamplingParams

VOCAB_SIZE = 40
EOS_ID = 7
OPERATIONS = ("submit", "step", "abort", "abort_in_flight", "fail", "new_weights", "wait")
WEIGHTS = (30, 60, 3, 3, 1, 1, 4)


def random_config(rng: random.Random) -> SchedulerConfig:
    max_num_sequences = rng.randint(1, 8)
    return SchedulerConfig(
        num_blocks=rng.randint(6, 24),
        block_size=rng.choice((1, 2, 4)),
        max_context=rng.randint(12, 48),
        max_num_sequences=max_num_sequences,
        max_tokens_per_step=max_num_sequences + rng.randint(0, 20),
        long_prefill_threshold=rng.choice((None, 1, 5)),
        max_waiting=rng.randint(2, 12),
        admission_reserve=rng.choice((0.0, 0.2)),
        enable_prefix_cache=rng.random() < 0.7,
        window=rng.choice((None, 1, 6)),
        seed=rng.randrange(100),
    )


class Driver:
    """Applies random operations; every answer is compared with an independent model."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.config = random_config(self.rng)
        self.scheduler = Scheduler(self.config, eos_ids=(EOS_ID,))
        self.clock = VirtualClock()
        self.requests: dict[str, Request] = {}
        self.runner = FakeRunner(self.config, self.requests, VOCAB_SIZE)
        self.runner.during_step = self._during_step
        self.loop = ServingLoop(self.scheduler, self.runner, self.clock)
        self.live: dict[str, list[int]] = {}
        self.seeds: dict[str, int] = {}
        self.unstarted: list[tuple[int, int, str]] = []
        self.abort_next: str | None = None
        self.num_submitted = 0

    def run(self, num_operations: int) -> None:
        for _ in range(num_operations):
            (operation,) = self.rng.choices(OPERATIONS, WEIGHTS)
            getattr(self, operation)()
            self.scheduler.check()
        self.drain()

    def drain(self) -> None:
        # The first in rank advances every step, so this many steps must do (no starvation).
        limits = (self._max_length(self.requests[id_]) for id_ in self.live)
        for _ in range(sum(limits) + 2):
            if not self.loop.has_work:
                break
            self.step()
        assert not self.loop.has_work
        assert not self.live
        assert not self.runner.sequences
        self.scheduler.check()
        stats = self.scheduler.stats()
        assert stats.num_used_blocks == 0
        assert stats.num_cached_blocks + stats.num_blank_blocks == stats.num_blocks

    def submit(self) -> None:
        rng, size = self.rng, self.config.block_size
        limit = self.config.context_limit
        shared = [rng.randrange(2)] * rng.randint(0, 6 * size)
        own = [rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, 12))]
        request = Request(
            id=f"r{self.num_submitted}",
            tokens=tuple((shared + own)[-(limit - 1) :]),
            sampling=SamplingParams(
                max_tokens=rng.choice((None, 1, 5, 20)),
                seed=rng.randrange(1000),
                ignore_eos=rng.random() < 0.5,
                min_tokens=rng.choice((0, 1)),
            ),
            priority=rng.choice((0, 0, 0, 1)),
            deadline_s=self.clock.now() + rng.uniform(5, 60) if rng.random() < 0.1 else None,
            cache_salt=rng.choice(("", "", "tenant")),
            sequence=rng.randrange(2),
        )
        self.num_submitted += 1
        num_waiting = self.scheduler.stats().num_waiting
        try:
            self.loop.submit(request)
        except QueueFullError:
            assert num_waiting >= self.config.max_waiting
            return
        assert num_waiting < self.config.max_waiting
        self.requests[request.id] = request
        self.live[request.id] = list(request.tokens)
        self.unstarted.append((request.priority, self.num_submitted, request.id))

    def step(self) -> None:
        self.clock.advance(1.0)
        updates = self.loop.step()
        if self.loop.failure is not None:  # an assertion of the fake runner
            raise self.loop.failure
        for update in updates:
            self._take(update)

    def abort(self) -> None:
        if self.live:
            request_id = self.rng.choice(list(self.live))
            update = self.loop.abort(request_id)
            assert update is not None
            assert update.finish_reason is FinishReason.ABORT
            self._end(request_id)
            assert self.loop.abort(request_id) is None

    def abort_in_flight(self) -> None:
        if self.live:
            self.abort_next = self.rng.choice(list(self.live))
            self.step()

    def fail(self) -> None:
        if self.live:
            self.runner.failing.add(self.rng.choice(list(self.live)))

    def new_weights(self) -> None:
        self.runner.weight_version += 1
        self.scheduler.set_weight_version(self.runner.weight_version)

    def wait(self) -> None:
        self.clock.advance(self.rng.uniform(0, 10))

    def _during_step(self, plan: StepPlan) -> None:
        started = [self.runner.sequences[new.id].request_id for new in plan.new]
        self.unstarted = [entry for entry in self.unstarted if entry[2] in self.live]
        first = [entry[2] for entry in sorted(self.unstarted)[: len(started)]]
        timed_out = {entry[2] for entry in self.unstarted if self._overdue(entry[2])}
        if not timed_out:
            assert started == first, "arrival order is kept within a priority"
        self.unstarted = [entry for entry in self.unstarted if entry[2] not in started]
        if self.abort_next in self.live and not self._overdue(self.abort_next):
            assert self.scheduler.finish(self.abort_next, FinishReason.ABORT) is not None
            self._end(self.abort_next)
        self.abort_next = None

    def _take(self, update: SequenceUpdate) -> None:
        request = self.requests[update.request_id]
        tokens = self.live[update.request_id]
        if update.token is not None:
            expected = next_token(
                request.sampling.seed or 0, request.sequence, fold_all(tokens), VOCAB_SIZE
            )
            assert update.token == expected
            tokens.append(update.token)
            assert update.finish_reason == self._reason(request, tokens)
        elif update.finish_reason is FinishReason.TIMEOUT:
            assert self._overdue(request.id)
        else:
            assert update.finish_reason is FinishReason.ERROR
            assert request.id in self.runner.failing
        if update.finish_reason is not None:
            self._end(request.id)

    def _end(self, request_id: str) -> None:
        del self.live[request_id]

    def _overdue(self, request_id: str) -> bool:
        deadline_s = self.requests[request_id].deadline_s
        return deadline_s is not None and deadline_s <= self.clock.now()

    def _max_length(self, request: Request) -> int:
        limit = self.config.context_limit
        return min(limit, len(request.tokens) + (request.sampling.max_tokens or limit))

    def _reason(self, request: Request, tokens: list[int]) -> FinishReason | None:
        num_output_tokens = len(tokens) - len(request.tokens)
        may_stop = num_output_tokens > request.sampling.min_tokens
        if tokens[-1] == EOS_ID and may_stop and not request.sampling.ignore_eos:
            return FinishReason.STOP
        return FinishReason.LENGTH if len(tokens) >= self._max_length(request) else None
