"""The scheduler: which tokens the next step computes, and what its result means.

A request is a row of tokens of which some are computed; every step computes a few more of as many
requests as the token budget, the KV blocks and `max_num_sequences` allow. Whatever a step cannot
finish, the next one continues, so there is no prefill and no decode mode (iteration-level
scheduling: Yu et al. 2022, Orca; chunked prefill with mixed batches: Agrawal et al. 2024,
arXiv:2403.02310).

`sched.roster` has the requests and moves them between queues, `sched.planner` writes a step's plan,
`sched.settle` reads its result.

Plans may be made before earlier ones are settled. What is known then is counted when it is planned
(`num_planned`); the token that a step in flight draws is `PENDING` in the next. The runner computes
plans in their order, so blocks can be handed on as soon as nobody plans to read them. Items of a
sequence that gave its blocks back meanwhile are *stale*: their tokens count, their keys and values
do not.
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Sequence as Ids

from weft.core.errors import ConfigError
from weft.sched.admission import check_number, check_prompt, duplicate_id, queue_full
from weft.sched.config import SchedulerConfig
from weft.sched.invariants import check_progress, check_queues
from weft.sched.manager import BlockTable, KVManager
from weft.sched.plan import SequenceUpdate, StepPlan, StepResult
from weft.sched.planner import Planner
from weft.sched.roster import Roster
from weft.sched.sequence import Sequence
from weft.sched.settle import Settler
from weft.sched.stats import SchedulerStats
from weft.spec.request import FinishReason, Request


class Scheduler:
    """Decides without tensors. Not thread-safe.

    One step is `schedule`, then `settle` with the runner's result, in the same order; `submit`,
    `finish` and `retract` may be called at any time, also between the two.

    Args:
        config: Sizes and limits.
        eos_ids: The model's own end tokens.
    """

    def __init__(self, config: SchedulerConfig, *, eos_ids: Ids[int] = ()) -> None:
        self.config = config
        self.kv = KVManager(
            config.num_blocks,
            config.block_size,
            enable_prefix_cache=config.enable_prefix_cache,
            ring_blocks=config.ring_blocks,
            sink_blocks=config.sink_blocks,
            tiers=config.make_tiers(),
            snapshots=config.make_snapshots(),
        )
        self._roster = Roster(config, self.kv, eos_ids)
        self._planner = Planner(self._roster)
        self._settler = Settler(self._roster)
        self._unsettled: deque[tuple[StepPlan, list[Sequence]]] = deque()
        self._timed_out: list[SequenceUpdate] = []

    # Requests come and go.

    @property
    def has_work(self) -> bool:
        """Whether a step would compute something or tell the runner to forget something."""
        return bool(self._roster.sequences or self._roster.forgettable or self._timed_out)

    @property
    def num_unfinished(self) -> int:
        """Requests that wait or run."""
        return len(self._roster.sequences)

    @property
    def num_waiting(self) -> int:
        """Requests in the queue, forks that wait for their parents included."""
        return self._roster.num_waiting

    def submit(self, request: Request) -> None:
        """Put a request in the queue.

        Raises:
            ContextLengthError: its prompt can never fit.
            QueueFullError: too many requests are waiting.
            RequestError: an empty prompt, or an id that is in use.
        """
        self.submit_all((request,))

    def submit_all(self, requests: Ids[Request]) -> None:
        """Put requests in the queue, all or none: a first sample, then those forked from it.

        Raises:
            ContextLengthError, QueueFullError, RequestError: as `submit` does for one of them, or
                there are more than may ever wait.
        """
        roster = self._roster
        ids = set(roster.sequences)
        for request in requests:
            if request.id in ids:
                raise duplicate_id(request)
            ids.add(request.id)
            check_prompt(request, self.config)
        check_number(len(requests), self.config)
        if roster.num_waiting + len(requests) > self.config.max_waiting:
            roster.counters.num_refused += len(requests)
            raise queue_full(roster.num_waiting, roster.endings.retry_after_s())
        for request in requests:
            roster.enter(request)

    def finish(
        self, request_id: str, reason: FinishReason, *, error: str | None = None
    ) -> SequenceUpdate | None:
        """End a request; the one way all endings go. Ending it again does nothing.

        Its blocks are given back at once; what steps in flight compute for it is dropped.

        Returns:
            The last update, or None if the request had ended or never was.
        """
        sequence = self._roster.sequences.get(request_id)
        return None if sequence is None else self._roster.end(sequence, reason, error)

    def retract(self) -> tuple[str, ...]:
        """Take the blocks of all running requests; they are computed again later.

        Tokens in flight still count. Returns the requests' ids.
        """
        running = list(self._roster.running)
        for sequence in reversed(running):
            self._roster.preempt(sequence)
        return tuple(sequence.request.id for sequence in running)

    # Weights change.

    @property
    def weight_version(self) -> int:
        """The version whose prefixes are reachable."""
        return self.kv.weight_version

    def set_weight_version(self, weight_version: int) -> None:
        """Make prefixes computed with older weights unreachable.

        Running sequences go on with the blocks they have; what they compute from now on mixes
        versions and is not shared. A sequence that is preempted is recomputed with the new ones,
        and so is a fork that has begun but computed nothing yet.

        Raises:
            ConfigError: the version is lower than the present one.
        """
        if weight_version < self.kv.weight_version:
            raise ConfigError(
                f"weight version {weight_version} is below the present {self.kv.weight_version}",
                fix="versions only grow; use a higher one",
            )
        if weight_version > self.kv.weight_version:
            for sequence in reversed(list(self._roster.running)):
                if not sequence.is_proven and sequence.num_in_flight == 0:
                    self._roster.preempt(sequence)
        self.kv.set_weight_version(weight_version)

    def flush_prefixes(self) -> None:
        """Forget every cached prefix; running requests give theirs back and start again."""
        self.retract()
        self.kv.flush()

    # One step.

    def schedule(self, now_s: float) -> StepPlan:
        """Choose what the next step computes; earlier ones need not be settled.

        A plan is without items if nothing can be computed before an earlier one is settled.

        Args:
            now_s: The clock; requests whose deadline has passed end with TIMEOUT.
        """
        roster = self._roster
        roster.now_s = now_s
        self._timed_out += roster.end_overdue()
        if len(roster.forks):
            roster.enqueue_ready_forks()
        plan, planned = self._planner.plan()
        assert plan.items or self._unsettled or not roster.sequences, "nothing can be scheduled"
        self._unsettled.append((plan, planned))
        return plan

    def settle(self, plan: StepPlan, result: StepResult, now_s: float) -> list[SequenceUpdate]:
        """Take in what the runner computed; return the news of every request that moved.

        Plans are settled in the order they were scheduled in.
        """
        self._roster.now_s = now_s
        oldest, sequences = self._unsettled.popleft()
        assert plan is oldest, f"step {oldest.step} comes before step {plan.step}"
        timed_out, self._timed_out = self._timed_out, []
        return timed_out + self._settler.settle(plan, sequences, result)

    # Inspection.

    def stats(self) -> SchedulerStats:
        """Return sizes now and totals so far."""
        pool = self.kv.pool
        return SchedulerStats(
            num_running=len(self._roster.running),
            num_waiting=self.num_waiting,
            num_blocks=pool.num_blocks,
            num_used_blocks=pool.num_blocks - pool.num_free,
            num_cached_blocks=pool.num_cached,
            num_blank_blocks=pool.num_free - pool.num_cached,
            counters=copy.deepcopy(self._roster.counters),
            tiers=None if self.kv.tiers is None else self.kv.tiers.stats(),
            snapshots=None if self.kv.snapshots is None else self.kv.snapshots.stats(),
        )

    def check(self) -> None:
        """Assert every invariant of queues and blocks. Slow; for tests and idle times."""
        roster = self._roster
        in_flight = Counter(s for _, planned in self._unsettled for s in planned)
        check_queues(roster)
        roster.policy.check()
        check_progress(roster.sequences.values(), in_flight, self.config.block_size)
        pinned = (BlockTable(blocks=(source,)) for source in roster.forks.sources)
        self.kv.check((*(s.table for s in roster.running), *pinned))
