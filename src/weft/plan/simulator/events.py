"""The event loop: many replicas, one time line.

Arrivals, ends of steps, transfers, failures and decisions are events in a heap. When all events of
one moment are done, every replica that is free and has work starts its next step. A request that
arrives during a step is seen when the step ends, as in the engine, and a router that looks at a
replica during a step sees the state before it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

from weft.core.errors import ConfigError, QueueFullError
from weft.plan.simulator.fleet import Failure, Fleet
from weft.plan.simulator.replica import Replica, Role
from weft.plan.simulator.result import SimulatedRequest, Simulation, StepRecord
from weft.plan.simulator.roles import Member
from weft.plan.workload.arrival import Arrival
from weft.plan.workload.source import Workload
from weft.sched.plan import SequenceUpdate
from weft.sched.routing import ReplicaLoad
from weft.spec import Request


def simulate_fleet(workload: Workload, fleet: Fleet, *, keep_steps: bool = False) -> Simulation:
    """Serve a workload in virtual time.

    Args:
        workload: What arrives.
        fleet: What serves it.
        keep_steps: Record every step, for plots and traces.

    Raises:
        ConfigError: nothing arrives.
        ContextLengthError: a prompt that can never fit.
    """
    return _Run(workload, fleet, keep_steps=keep_steps).run()


@dataclass
class _Journey:
    """One request on its way through the fleet."""

    index: int
    state: SimulatedRequest
    drawn: list[int] = field(default_factory=list)
    closed: bool = False

    @property
    def num_left(self) -> int:
        return self.state.arrival.num_output_tokens - len(self.drawn)

    def request(self, max_tokens: int | None = None) -> Request:
        """Return what is left to do; all tokens so far are its prompt."""
        request = self.state.arrival.request(self.index)
        if not self.drawn and max_tokens is None:
            return request
        sampling = replace(request.sampling, max_tokens=max_tokens or self.num_left)
        return replace(request, tokens=(*request.tokens, *self.drawn), sampling=sampling)


class _Run:
    def __init__(self, workload: Workload, fleet: Fleet, *, keep_steps: bool) -> None:
        self.fleet = fleet
        self.source = workload.source()
        self.now_s = 0.0
        self.replicas = _make_replicas(fleet)
        self.routing, self.decode_routing = fleet.routing(), fleet.decode_routing()
        self.journeys: list[_Journey] = []
        self.steps: list[StepRecord] | None = [] if keep_steps else None
        self.targets: dict[int, Role] = {}
        self.parked: deque[Callable[[], None]] = deque()
        self.num_open = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._awake: dict[int, None] = {}

    def run(self) -> Simulation:
        for arrival in self.source.first():
            self._expect(arrival)
        if not self.journeys:
            raise ConfigError("the workload is empty", fix="give at least one Arrival")
        for failure in self.fleet.failures:
            self._at(failure.time_s, partial(self._fail, failure))
        if self.fleet.roles is not None:
            self._at(self.fleet.roles.interval_s, self._decide)
        while self._heap and self.num_open:
            self.now_s, _, act = heapq.heappop(self._heap)
            act()
            if not self._heap or self._heap[0][0] > self.now_s:
                self._start_steps()
        return self._result()

    # Requests.

    def _expect(self, arrival: Arrival) -> None:
        journey = _Journey(len(self.journeys), SimulatedRequest(arrival))
        self.journeys.append(journey)
        self.num_open += 1
        self._at(arrival.time_s, partial(self._enter, journey))

    def _enter(self, journey: _Journey) -> None:
        """Send a request to a replica that computes its prompt."""
        disaggregated = self.fleet.disaggregated
        request = journey.request(1 if disaggregated else None)
        loads = self._loads("prefill" if disaggregated else "mixed")
        if not loads:
            self.parked.append(partial(self._enter, journey))
            return
        self._submit(journey, request, self.routing.choose(request, loads), with_cache=False)

    def _land(self, journey: _Journey) -> None:
        """Send a request whose keys and values are computed to a decode replica."""
        request = journey.request()
        loads = self._loads("decode")
        if not loads:
            self.parked.append(partial(self._land, journey))
            return
        self._submit(journey, request, self.decode_routing.choose(request, loads), with_cache=True)

    def _submit(
        self, journey: _Journey, request: Request, number: int, *, with_cache: bool
    ) -> None:
        try:
            self.replicas[number].submit(request, with_cache=with_cache)
        except QueueFullError:
            journey.state.refused = True
            self._close(journey)
            return
        journey.state.replicas += (number,)
        self._awake[number] = None

    def _close(self, journey: _Journey) -> None:
        self.num_open -= 1
        journey.closed = True
        following = self.source.after(self.now_s)
        if following is not None:
            self._expect(following)

    # Steps.

    def _start_steps(self) -> None:
        for number in sorted(self._awake):
            replica = self.replicas[number]
            if replica.can_step(self.now_s):
                updates, record = replica.step(self.now_s)
                if self.steps is not None and record.num_tokens:
                    self.steps.append(record)
                self._at(record.end_s, partial(self._end_step, replica, replica.life, updates))
        self._awake.clear()

    def _end_step(self, replica: Replica, life: int, updates: list[SequenceUpdate]) -> None:
        if replica.life != life:
            return
        for update in updates:
            self._take(update, replica)
        self._awake[replica.number] = None
        self._advance_switch(replica)

    def _take(self, update: SequenceUpdate, replica: Replica) -> None:
        assert update.token is not None, "only tokens end a simulated request"
        journey = self.journeys[int(update.request_id)]
        state = journey.state
        if not journey.drawn:
            state.first_token_s = self.now_s
            state.num_cached_tokens = update.num_cached_tokens
        journey.drawn.append(update.token)
        state.num_output_tokens += 1
        state.finish_s = self.now_s
        if update.finish_reason is None:
            return
        del replica.assigned[update.request_id]
        if replica.role == "prefill" and journey.num_left > 0:
            self._transfer(journey)
        else:
            self._close(journey)

    def _transfer(self, journey: _Journey) -> None:
        assert self.fleet.transfer is not None
        num_tokens = journey.state.arrival.num_prompt_tokens + len(journey.drawn) - 1
        self._at(self.now_s + self.fleet.transfer.seconds(num_tokens), partial(self._land, journey))

    # Failures and roles.

    def _fail(self, failure: Failure) -> None:
        replica = self.replicas[failure.replica]
        replica.open = False
        for policy in (self.routing, self.decode_routing):
            policy.forget(replica.number)
        for request_id in replica.lose_everything(self.now_s):
            self._enter(self.journeys[int(request_id)])
        if failure.repair_s is not None:
            self._at(self.now_s + failure.repair_s, partial(self._open, replica, replica.role))

    def _decide(self) -> None:
        policy = self.fleet.roles
        assert policy is not None
        changes = policy.decide([self._member(r) for r in self.replicas if self._is_up(r)])
        for number, role in changes.items():
            self.targets[number] = role
            self.replicas[number].open = False
            self._advance_switch(self.replicas[number])
        if self._heap or changes:  # else nothing will ever happen again
            self._at(self.now_s + policy.interval_s, self._decide)

    def _is_up(self, replica: Replica) -> bool:
        return replica.open or replica.number in self.targets or replica.role == "standby"

    def _member(self, replica: Replica) -> Member:
        target = self.targets.get(replica.number)
        load = replica.load(self.now_s)
        return Member(replica.number, target or replica.role, load, target is not None)

    def _advance_switch(self, replica: Replica) -> None:
        """Let a replica that is to take another role begin to, once it is empty."""
        role = self.targets.get(replica.number)
        if role is None or replica.assigned or replica.role == role:
            return
        replica.become(role, self.now_s)
        if role == "standby":
            del self.targets[replica.number]
        else:
            self._at(self.now_s + self.fleet.switch_s, partial(self._open, replica, role))

    def _open(self, replica: Replica, role: Role) -> None:
        """Let a replica take requests, first those nobody could take."""
        self.targets.pop(replica.number, None)
        replica.open = role != "standby"
        parked, self.parked = self.parked, deque()
        for act in parked:
            act()

    def _loads(self, role: Role) -> dict[int, ReplicaLoad]:
        return {
            replica.number: replica.load(self.now_s)
            for replica in self.replicas
            if replica.open and replica.role == role
        }

    def _at(self, time_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (time_s, next(self._order), act))

    def _result(self) -> Simulation:
        for journey in self.journeys:
            if not journey.closed:  # nobody was left to serve it
                journey.state.refused = True
        requests = tuple(journey.state for journey in self.journeys)
        return Simulation(
            requests=requests,
            duration_s=self.now_s - min(request.arrival.time_s for request in requests),
            replicas=tuple(replica.result(self.now_s) for replica in self.replicas),
            steps=tuple(self.steps or ()),
        )


def _make_replicas(fleet: Fleet) -> list[Replica]:
    numbers = count()
    return [
        Replica(next(numbers), pool.role, pool.scheduler, pool.step_time)
        for pool in fleet.pools
        for _ in range(pool.num_replicas)
    ]
