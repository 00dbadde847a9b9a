"""Random traffic against scheduler, KV manager and fake runner, with a model of what must hold.

The runner keeps what the cache would hold and compares every token it reads; the driver compares
every token drawn with the one the request would get alone. What a request gets therefore depends
on nothing that happens around it.
"""

from __future__ import annotations

import random
from collections import Counter

from tests.sched.fake_runner import FakeRunner, History, fold, next_token
from weft.core.errors import QueueFullError, RequestError
from weft.sched.budget import StepTime
from weft.sched.config import SchedulerConfig
from weft.sched.launch import Handle, LaunchedLazily
from weft.sched.loop import ServingLoop, VirtualClock
from weft.sched.plan import Draft, SequenceUpdate, StepPlan
from weft.sched.scheduler import Scheduler
from weft.sched.snapshots import SnapshotConfig
from weft.sched.tier_policy import TierConfig
from weft.spec.request import FinishReason, Request
from weft.spec.sampling import SamplingParams

VOCAB_SIZE = 40
EOS_ID = 7
POLICIES = ("priority", "fcfs", "longest_prefix", "shortest_remaining", "fair_share")
WEIGHTS = {
    "submit": 14,
    "step": 60,
    "fork": 8,
    "samples": 3,
    "abort": 3,
    "abort_in_flight": 3,
    "fail": 1,
    "break_step": 0.3,
    "new_weights": 1,
    "wait": 4,
    "retract": 1,
    "flush": 0.3,
    "drain_loop": 1,
    "corrupt_disk": 4,
    "fill_disk": 0.03,
}


def random_tiers(rng: random.Random) -> TierConfig:
    """Blocks count as one byte each; reading one pays off always, or only for several."""
    return TierConfig(
        host_bytes=rng.randint(1, 10),
        disk_bytes=rng.choice((0, 4, 20)),
        write_policy=rng.choice(("write_through", "write_back")),
        host_bandwidth=1000.0,
        disk_bandwidth=1000.0,
        host_latency_s=rng.choice((0.0, 1.0)),
        disk_latency_s=rng.choice((0.0, 2.0)),
        prefill_tokens_per_s=1.0,
    )


def random_config(rng: random.Random) -> SchedulerConfig:
    max_num_sequences = rng.randint(1, 8)
    block_size = rng.choice((1, 2, 4))
    enable_prefix_cache = rng.random() < 0.7
    window = rng.choice((None, 1, 6))
    has_target = rng.random() < 0.3
    snapshots = None
    if enable_prefix_cache and rng.random() < 0.25:
        interval = block_size * rng.choice((1, 2))
        snapshots = SnapshotConfig(interval_tokens=interval, num_slots=rng.randint(1, 5))
    may_draft = snapshots is None and (enable_prefix_cache or window is None)
    return SchedulerConfig(
        num_blocks=rng.randint(6, 24),
        block_size=block_size,
        max_context=rng.randint(12, 48),
        max_num_sequences=max_num_sequences,
        max_tokens_per_step=max_num_sequences + rng.randint(0, 20),
        long_prefill_threshold=rng.choice((None, 1, 5)),
        max_waiting=rng.randint(2, 12),
        admission_reserve=rng.choice((0.0, 0.2)),
        enable_prefix_cache=enable_prefix_cache,
        window=window,
        num_sinks=rng.choice((0, 1, 3)),
        max_draft=rng.choice((0, 1, 5)) if may_draft else 0,
        tiers=random_tiers(rng) if enable_prefix_cache and rng.random() < 0.5 else None,
        block_bytes=1,
        snapshots=snapshots,
        enable_forks=rng.random() < 0.8,
        policy=rng.choice(POLICIES),
        max_overtakes=rng.choice((1, 3, 64)),
        step_time=StepTime(base_s=1.0, per_token_s=1.0, per_context_token_s=0.01),
        tpot_target_s=rng.uniform(1.0, 10.0) if has_target else None,
        seed=rng.randrange(100),
    )


class Driver:
    """Applies random operations; every answer is compared with an independent model.

    An operation is a method named in `WEIGHTS`.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.config = random_config(self.rng)
        self.scheduler = Scheduler(self.config, eos_ids=(EOS_ID,))
        self.clock = VirtualClock()
        self.requests: dict[str, Request] = {}
        self.runner = FakeRunner(self.config, self.requests, VOCAB_SIZE)
        self.runner.during_step = self._during_step
        self.runner.propose = self._propose
        self.depth = self.rng.choice((0, 0, 1, 1, 2))
        self.accuracy = self.rng.choice((0.1, 0.8, 1.0))
        self.loop = ServingLoop(self.scheduler, self, self.clock, depth=self.depth)
        self.live: dict[str, list[int]] = {}
        self.states: dict[str, int] = {}
        self.unstarted: dict[str, int] = {}
        self.abort_next: str | None = None
        self.breaks_next = False
        self.num_submitted = 0
        self.events: Counter[str] = Counter()

    def run(self, num_operations: int, *, check_every: int = 1) -> None:
        names = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=num_operations)
        for index, name in enumerate(names):
            getattr(self, name)()
            if index % check_every == 0:
                self.scheduler.check()
        self.drain()

    def drain(self) -> None:
        """Serve to the end: nothing is left behind, and it takes no longer than it may."""
        # The first in rank advances whenever its last step is settled (no starvation).
        num_tokens = sum(self._max_length(self.requests[id_]) for id_ in self.live)
        for _ in range((num_tokens + 2) * (self.depth + 1)):
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
        self.events.update(stats.counters.num_finished)
        self.events["preemptions"] += stats.counters.num_preemptions
        self.events["hits"] += stats.counters.num_prefix_hit_tokens
        self.events["refused"] += stats.counters.num_refused
        self.events["guesses that held"] += self.runner.num_guesses_held
        self.events["guesses that failed"] += self.runner.num_guesses - self.runner.num_guesses_held
        self.events["copies"] += self.runner.num_copies
        for kept in (stats.tiers and stats.tiers.counters, stats.snapshots):
            self.events.update({} if kept is None else vars(kept))

    # Requests.

    def submit(self) -> None:
        rng, size = self.rng, self.config.block_size
        shared = [rng.randrange(2)] * rng.randint(0, 6 * size)
        own = [rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, 12))]
        self._submit([self._request(shared + own)])

    def fork(self) -> None:
        """Go on from what a live request has so far, or from a part of it."""
        if self.live:
            parent = self.rng.choice(list(self.live))
            tokens = self.live[parent]
            num_shared = self.rng.choice((len(tokens), self.rng.randint(1, len(tokens))))
            own = [self.rng.randrange(VOCAB_SIZE) for _ in range(self.rng.randint(0, 2))]
            like = self._same_prefixes(parent) if self.rng.random() < 0.9 else {}
            self._submit([self._request(tokens[:num_shared] + own, fork_of=parent, **like)])
            if self.rng.random() < 0.3:
                self._abort(parent)

    def samples(self) -> None:
        first = self._request([self.rng.randrange(3) for _ in range(self.rng.randint(1, 15))])
        like = {"cache_salt": first.cache_salt, "adapter": first.adapter, "fork_of": first.id}
        forks = [self._request(list(first.tokens), **like) for _ in range(self.rng.randint(1, 4))]
        self._submit([first, *forks])

    def _same_prefixes(self, request_id: str) -> dict[str, str]:
        request = self.requests[request_id]
        return {"cache_salt": request.cache_salt, "adapter": request.adapter}

    def abort(self) -> None:
        if self.live:
            self._abort(self.rng.choice(list(self.live)))

    def abort_in_flight(self) -> None:
        if self.live:
            self.abort_next = self.rng.choice(list(self.live))
            self.step()

    def fail(self) -> None:
        if self.live:
            self.runner.failing.add(self.rng.choice(list(self.live)))

    def break_step(self) -> None:
        """Let a whole step fail: all of its requests end, and all others go on."""
        self.breaks_next = True
        self.step()

    # Time and weights.

    def step(self) -> None:
        self.clock.advance(1.0)
        self._take_all(self.loop.step())

    def drain_loop(self) -> None:
        self._take_all(self.loop.drain())
        assert self.loop.num_in_flight == 0

    def wait(self) -> None:
        self.clock.advance(self.rng.uniform(0, 10))

    def new_weights(self) -> None:
        self.drain_loop()  # steps in flight were planned for the old ones
        self.runner.weight_version += 1
        self.scheduler.set_weight_version(self.runner.weight_version)

    def retract(self) -> None:
        num_running = self.scheduler.num_unfinished - self.scheduler.num_waiting
        assert len(self.scheduler.retract()) == num_running
        assert self.scheduler.kv.pool.num_free == self.config.num_blocks

    def flush(self) -> None:
        self.drain_loop()
        self.retract()
        self.scheduler.flush_prefixes()
        assert self.scheduler.stats().num_cached_blocks == 0

    # Tiers.

    def corrupt_disk(self) -> None:
        """Let reads of some disk slots fail."""
        slots = list(self.runner.tiers.disk)
        self.runner.tiers.corrupt(self.rng.sample(slots, len(slots) // 2))

    def fill_disk(self) -> None:
        self.runner.tiers.disk_is_full = True

    # What the loop calls.

    def launch(self, plan: StepPlan) -> Handle:
        """Check the order of service as soon as a plan is made; compute it when it is settled."""
        self._check_order([new.request_id for new in plan.new])
        return LaunchedLazily(self.runner).launch(plan)

    def _during_step(self, plan: StepPlan) -> None:
        if self.breaks_next:
            self.breaks_next = False
            self.events["broken steps"] += 1
            # The runner lost what these would have drawn; they fail for good.
            ids = {self.runner.sequences[item.id].new.request_id for item in plan.items}
            self.runner.failing |= ids
            raise RuntimeError("the step broke")
        # It may have ended in a step that is settled in the same breath.
        if self.abort_next and self.scheduler.finish(self.abort_next, FinishReason.ABORT):
            self._end(self.abort_next)
        self.abort_next = None

    def _propose(self, history: History) -> Draft | None:
        """Guess a chain or a tree along what will be drawn, with some guesses wrong."""
        rng = self.rng
        num_guesses = rng.randint(0, 6) if self.config.max_draft else 0
        if num_guesses == 0:
            return None
        tokens: list[int] = []
        parents: list[int] = []
        states: list[int] = []
        depths: list[int] = []
        is_tree = rng.random() < 0.5
        for index in range(num_guesses):
            parent = rng.randrange(-1, index) if is_tree else index - 1
            state = states[parent] if parent >= 0 else history.states[-1]
            depth = depths[parent] + 1 if parent >= 0 else 0
            token = history.draw(state, len(history.tokens) + depth)
            if rng.random() > self.accuracy:
                token = rng.randrange(VOCAB_SIZE)
            tokens.append(token)
            parents.append(parent)
            states.append(fold(state, token))
            depths.append(depth)
        return Draft(tuple(tokens), tuple(parents) if is_tree else ())

    # The model.

    def _request(self, tokens: list[int], **changes) -> Request:
        rng = self.rng
        self.num_submitted += 1
        fields = {
            "sampling": SamplingParams(
                max_tokens=rng.choice((None, 1, 5, 20)),
                seed=rng.randrange(1000),
                ignore_eos=rng.random() < 0.5,
                min_tokens=rng.choice((0, 1)),
            ),
            "priority": rng.choice((0, 0, 0, 1)),
            "deadline_s": self.clock.now() + rng.uniform(5, 60) if rng.random() < 0.1 else None,
            "cache_salt": rng.choice(("", "", "tenant")),
            "sequence": rng.randrange(2),
            "adapter": rng.choice(("", "", "adapter#1")),
            "tenant": rng.choice(("", "one", "two")),
            **changes,
        }
        limit = self.config.context_limit
        return Request(f"r{self.num_submitted}", tuple(tokens[-(limit - 1) :]), **fields)

    def _submit(self, requests: list[Request]) -> None:
        num_waiting = self.scheduler.num_waiting
        try:
            self.loop.submit_all(requests)
        except QueueFullError:
            assert num_waiting + len(requests) > self.config.max_waiting
            return
        except RequestError:
            assert len(requests) > self.config.max_waiting
            return
        assert num_waiting + len(requests) <= self.config.max_waiting
        for request in requests:
            self.requests[request.id] = request
            self.live[request.id] = list(request.tokens)
            state = 0
            for token in request.tokens:
                state = fold(state, token)
            self.states[request.id] = state
            self.unstarted[request.id] = request.priority

    def _check_order(self, started: list[str]) -> None:
        """Whoever comes first in order is admitted first."""
        # Forks are served in their parents' place, and before they are admitted they are held.
        if self.config.enable_forks:
            return
        ids = list(self.unstarted)
        if self.config.policy == "priority":
            ids.sort(key=lambda id_: self.unstarted[id_])
        in_order = self.config.policy in ("priority", "fcfs")
        if in_order and not any(self._overdue(id_) for id_ in ids):
            assert started == ids[: len(started)]
        for id_ in started:
            self.unstarted.pop(id_, None)

    def _take_all(self, updates: list[SequenceUpdate]) -> None:
        if isinstance(self.loop.failure, AssertionError):
            raise self.loop.failure
        for update in updates:
            self._take(update)

    def _take(self, update: SequenceUpdate) -> None:
        request = self.requests[update.request_id]
        tokens = self.live[update.request_id]
        if update.token is not None:
            seed, state = request.sampling.seed or 0, self.states[request.id]
            expected = next_token(seed, request.sequence, state, len(tokens), VOCAB_SIZE)
            assert update.token == expected
            tokens.append(update.token)
            self.states[request.id] = fold(state, update.token)
            assert update.finish_reason == self._reason(request, tokens)
        elif update.finish_reason is FinishReason.TIMEOUT:
            assert self._overdue(request.id)
        else:
            assert update.finish_reason is FinishReason.ERROR
            assert request.id in self.runner.failing
        if update.finish_reason is not None:
            self._end(request.id)

    def _abort(self, request_id: str) -> None:
        update = self.loop.abort(request_id)
        if update is None:
            assert self._overdue(request_id), "its end is news of the next step settled"
            return
        assert update.finish_reason is FinishReason.ABORT
        self._end(request_id)
        assert self.loop.abort(request_id) is None

    def _end(self, request_id: str) -> None:
        del self.live[request_id], self.states[request_id]
        self.unstarted.pop(request_id, None)

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
