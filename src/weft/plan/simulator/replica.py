"""One simulated engine: a serving loop on its own clock, with its cache and its role."""

from __future__ import annotations

from collections import deque
from typing import Literal

from weft.plan.simulator.result import ReplicaResult, StepRecord
from weft.plan.simulator.runner import SimRunner, StepTime
from weft.sched.config import SchedulerConfig
from weft.sched.loop import ServingLoop, VirtualClock
from weft.sched.manager import BlockTable
from weft.sched.plan import SequenceUpdate, StepPlan
from weft.sched.routing import ReplicaLoad
from weft.sched.scheduler import Scheduler
from weft.spec import Request

Role = Literal["mixed", "prefill", "decode", "standby"]


class Replica:
    """One engine of a fleet.

    Attributes:
        number: Its place in the fleet.
        role: What it takes; "standby" takes nothing and costs nothing.
        open: Whether it takes new requests: not while it drains, starts or is down.
        life: Counts restarts, so that news from before one can be told apart.
        assigned: Ids of the requests it holds.
    """

    def __init__(
        self, number: int, role: Role, scheduler: SchedulerConfig, step_time: StepTime
    ) -> None:
        self.number = number
        self.role: Role = role
        self.open = role != "standby"
        self.life = 0
        self.assigned: dict[str, None] = {}
        self._config = scheduler
        self._step_time = step_time
        self._busy_until_s = 0.0
        self._busy_s = 0.0
        self._held_s = 0.0
        self._held_since_s = 0.0
        self._start()

    def _start(self) -> None:
        self.clock = VirtualClock()
        self.runner = SimRunner(self.clock, self._step_time)
        self.loop = ServingLoop(Scheduler(self._config), self.runner, self.clock)
        self._imports: deque[Request] = deque()
        self._seen = ReplicaLoad(0)
        self._num_since_seen = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return self.loop.has_work or bool(self._imports)

    def can_step(self, now_s: float) -> bool:
        """Whether the last step has ended and there is something to do."""
        return self._busy_until_s <= now_s and self.has_work

    def submit(self, request: Request, *, with_cache: bool) -> None:
        """Queue a request.

        Args:
            request: What to serve.
            with_cache: Keys and values of its tokens have come over the network: they are put
                into the prefix cache as soon as there are blocks for them.

        Raises:
            ContextLengthError: it can never fit.
            QueueFullError: too many requests are waiting.
        """
        if with_cache:
            self._imports.append(request)
        else:
            self.loop.submit(request)
        self.assigned[request.id] = None
        self._num_since_seen += 1

    def load(self, now_s: float) -> ReplicaLoad:
        """Return what a router knows: during a step, the state before it and what came since."""
        if now_s >= self._busy_until_s:
            return self._look()
        return ReplicaLoad(self._seen.num_requests + self._num_since_seen, self._seen.kv_usage)

    def step(self, now_s: float) -> tuple[list[SequenceUpdate], StepRecord]:
        """Run one step from ``now_s`` on; its news hold from the record's end."""
        self.clock.sleep_until(now_s)
        self._seen, self._num_since_seen = self._look(), 0
        self._import()
        num_requests = self._look().num_requests
        self.runner.last = StepPlan(-1)
        updates = self.loop.step()
        if self.loop.failure is not None:
            raise self.loop.failure
        end_s = self._busy_until_s = self.clock.now()
        self._busy_s += end_s - now_s
        plan = self.runner.last
        record = StepRecord(
            replica=self.number,
            start_s=now_s,
            end_s=end_s,
            num_tokens=plan.num_tokens,
            num_sequences=len(plan.items),
            num_waiting=num_requests - len(plan.items),
            kv_usage=self._kv_usage(),
        )
        return updates, record

    def lose_everything(self, now_s: float) -> list[str]:
        """Drop cache and requests, as a crash does; return the requests that were here."""
        lost = list(self.assigned)
        self.assigned.clear()
        self.life += 1
        self._busy_until_s = now_s
        self._start()
        return lost

    def become(self, role: Role, now_s: float) -> None:
        """Take another role from now on."""
        if self.role != "standby":
            self._held_s += now_s - self._held_since_s
        self.role, self._held_since_s = role, now_s

    def result(self, now_s: float) -> ReplicaResult:
        """Return what it has done so far."""
        self.become(self.role, now_s)
        return ReplicaResult(self.loop.scheduler.stats(), self._busy_s, self._held_s)

    def _look(self) -> ReplicaLoad:
        num_requests = self.loop.scheduler.num_unfinished + len(self._imports)
        return ReplicaLoad(num_requests, self._kv_usage())

    def _kv_usage(self) -> float:
        pool = self.loop.scheduler.kv.pool
        return 1.0 - pool.num_free / pool.num_blocks

    def _import(self) -> None:
        """Enter transferred keys and values into the prefix cache, first come first served."""
        kv = self.loop.scheduler.kv
        while self._imports:
            request = self._imports[0]
            table = BlockTable(salt=request.cache_salt)
            fits = len(request.tokens) <= kv.pool.num_blocks * kv.block_size
            if fits and kv.begin(table, request.tokens) is None:
                return
            if fits:
                kv.commit(table, request.tokens, len(request.tokens))
                kv.free(table)
            self.loop.submit(self._imports.popleft())
