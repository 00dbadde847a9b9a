"""The scheduler: which tokens the next step computes, and what its result means.

A request is a row of tokens of which some are computed; every step computes a few more of as many
requests as the token budget, the KV blocks and `max_num_sequences` allow. Whatever a step cannot
finish, the next one continues, so there is no prefill and no decode mode (iteration-level
scheduling: Yu et al. 2022, Orca; chunked prefill with mixed batches: Agrawal et al. 2024,
arXiv:2403.02310).

The order within a step keeps promises:

1. Sequences that miss a single token go first, so a long prompt never stalls running outputs.
2. Then running prompts, in chunks, then admissions in order of rank (priority, then arrival).
   The first in line is never overtaken, so nobody starves.
3. Blocks for all known tokens are taken at admission; only outputs grow. When no block is free,
   the running sequence of the last rank is preempted: its blocks go back, and its prompt *and*
   output are computed again later. The first rank can take every block, so it always advances.
"""

from __future__ import annotations

import copy
import heapq
import random
from collections.abc import Sequence as Ids

from weft.core.errors import ConfigError
from weft.sched.admission import check_prompt, duplicate_id, queue_full
from weft.sched.config import SchedulerConfig
from weft.sched.manager import BlockTable, KVManager
from weft.sched.plan import (
    NewSequence,
    Sampled,
    SequenceUpdate,
    StepItem,
    StepPlan,
    StepResult,
)
from weft.sched.sequence import Phase, Sequence, ending_tokens
from weft.sched.stats import Counters, SchedulerStats
from weft.sched.waiting import EndingRate, RankedQueue
from weft.spec.request import FinishReason, Request


class Scheduler:
    """Decides without tensors. Not thread-safe.

    One step is `schedule`, then `settle` with the runner's result; `submit` and `finish` may be
    called at any time, also between the two.

    Args:
        config: Sizes and limits.
        eos_ids: The model's own end tokens.
    """

    def __init__(self, config: SchedulerConfig, *, eos_ids: Ids[int] = ()) -> None:
        self.config = config
        self.eos_ids = tuple(eos_ids)
        self.kv = KVManager(
            config.num_blocks,
            config.block_size,
            enable_prefix_cache=config.enable_prefix_cache,
            ring_blocks=config.ring_blocks,
        )
        self._sequences: dict[str, Sequence] = {}
        self._waiting = RankedQueue()
        self._running = RankedQueue()
        self._deadlines: list[tuple[float, int, str]] = []
        self._in_flight: dict[int, Sequence] = {}
        self._forgettable: list[int] = []
        self._preempted: list[int] = []
        self._timed_out: list[SequenceUpdate] = []
        self._counters = Counters()
        self._endings = EndingRate()
        self._seeds = random.Random(config.seed)
        self._num_submitted = 0
        self._step = 0
        self._now_s = 0.0

    # Requests come and go.

    @property
    def has_work(self) -> bool:
        """Whether a step would compute something or tell the runner to forget something."""
        return bool(self._sequences or self._forgettable or self._timed_out)

    @property
    def num_unfinished(self) -> int:
        """Requests that wait or run."""
        return len(self._sequences)

    def submit(self, request: Request) -> None:
        """Put a request in the queue.

        Raises:
            ContextLengthError: its prompt can never fit.
            QueueFullError: too many requests are waiting.
            RequestError: an empty prompt, or an id that is in use.
        """
        if request.id in self._sequences:
            raise duplicate_id(request)
        check_prompt(request, self.config)
        if len(self._waiting) >= self.config.max_waiting:
            self._counters.num_refused += 1
            raise queue_full(len(self._waiting), self._endings.retry_after_s())
        sequence = self._new_sequence(request)
        self._sequences[request.id] = sequence
        self._waiting.add(sequence)
        if request.deadline_s is not None:
            heapq.heappush(self._deadlines, (request.deadline_s, sequence.id, request.id))

    def finish(
        self, request_id: str, reason: FinishReason, *, error: str | None = None
    ) -> SequenceUpdate | None:
        """End a request; the one way all endings go. Ending it again does nothing.

        Its blocks are given back at once, or when the step that computes it is settled.

        Returns:
            The last update, or None if the request had ended or never was.
        """
        sequence = self._sequences.get(request_id)
        return None if sequence is None else self._end(sequence, reason, error)

    @property
    def weight_version(self) -> int:
        """The version whose prefixes are reachable."""
        return self.kv.weight_version

    def set_weight_version(self, weight_version: int) -> None:
        """Make prefixes computed with older weights unreachable.

        Running sequences go on with the blocks they have; what they compute from now on mixes
        versions and is not shared. A sequence that is preempted is recomputed with the new ones.

        Raises:
            ConfigError: the version is lower than the present one.
        """
        if weight_version < self.kv.weight_version:
            raise ConfigError(
                f"weight version {weight_version} is below the present {self.kv.weight_version}",
                fix="versions only grow; use a higher one",
            )
        self.kv.set_weight_version(weight_version)

    # One step.

    def schedule(self, now_s: float) -> StepPlan:
        """Choose what the next step computes.

        Args:
            now_s: The clock; requests whose deadline has passed end with TIMEOUT.
        """
        assert not self._in_flight, "the last step is not settled"
        self._now_s = now_s
        self._end_overdue()
        self._preempted.clear()
        items, num_left = self._continue_running()
        new: list[NewSequence] = []
        # Whoever had to give way just now would be the first to come back and thrash.
        if not self._preempted:
            self._admit(items, new, num_left)
        assert items or not self._sequences, "work waits but none of it can be scheduled"
        finished = tuple(self._forgettable)
        self._forgettable.clear()
        plan = StepPlan(
            self._step, tuple(items), tuple(new), finished, preempted=tuple(self._preempted)
        )
        self._step += 1
        return plan

    def settle(self, plan: StepPlan, result: StepResult, now_s: float) -> list[SequenceUpdate]:
        """Take in what the runner computed; return the news of every request that moved."""
        self._now_s = now_s
        updates, self._timed_out = self._timed_out, []
        for item in plan.items:
            sequence = self._in_flight.pop(item.id)
            if sequence.phase is Phase.FINISHED:
                self.kv.free(sequence.table)
                continue
            updates += self._settle_item(sequence, item, result)
        if plan.items:
            self._counters.num_steps += 1
            self._counters.num_computed_tokens += plan.num_tokens
        return updates

    # Inspection.

    def stats(self) -> SchedulerStats:
        """Return sizes now and totals so far."""
        pool = self.kv.pool
        return SchedulerStats(
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            num_blocks=pool.num_blocks,
            num_used_blocks=pool.num_blocks - pool.num_free,
            num_cached_blocks=pool.num_cached,
            num_blank_blocks=pool.num_free - pool.num_cached,
            counters=copy.deepcopy(self._counters),
        )

    def check(self) -> None:
        """Assert every invariant of queues and blocks. Slow; for tests and idle times."""
        sequences = [*self._waiting, *self._running]
        assert {s.request.id: s for s in sequences} == self._sequences
        for sequence in self._waiting:
            assert sequence.phase is Phase.WAITING
            assert sequence.num_computed == 0
            assert not sequence.table.blocks
        assert all(s.phase is Phase.RUNNING for s in self._running)
        assert len(self._running) <= self.config.max_num_sequences
        for queue in (self._waiting, self._running):
            ranks = [sequence.rank for sequence in queue]
            assert ranks == sorted(ranks)
        for sequence in self._running:
            assert sequence.num_computed < len(sequence.tokens) < sequence.max_length
            assert sequence.num_computed <= len(sequence.table.blocks) * self.config.block_size
        ended = (s for s in self._in_flight.values() if s.phase is Phase.FINISHED)
        self.kv.check(s.table for s in (*self._running, *ended))

    def _new_sequence(self, request: Request) -> Sequence:
        sampling, limit = request.sampling, self.config.context_limit
        id_ = self._num_submitted
        self._num_submitted += 1
        if sampling.max_tokens is not None:
            limit = min(limit, len(request.tokens) + sampling.max_tokens)
        return Sequence(
            id=id_,
            request=request,
            seed=self._seeds.getrandbits(63) if sampling.seed is None else sampling.seed,
            stop_token_ids=ending_tokens(request, self.eos_ids),
            max_length=limit,
            tokens=list(request.tokens),
            table=BlockTable(salt=request.cache_salt, adapter=request.adapter),
        )

    def _end(
        self, sequence: Sequence, reason: FinishReason, error: str | None = None
    ) -> SequenceUpdate:
        del self._sequences[sequence.request.id]
        queue = self._waiting if sequence.phase is Phase.WAITING else self._running
        queue.remove(sequence)
        sequence.phase = Phase.FINISHED
        if sequence.known:
            self._forgettable.append(sequence.id)
        if sequence.id not in self._in_flight:
            self.kv.free(sequence.table)
        self._counters.num_finished[reason] += 1
        self._endings.note(self._now_s)
        return SequenceUpdate(
            sequence.request.id,
            finish_reason=reason,
            num_cached_tokens=sequence.num_cached,
            error=error,
        )

    def _end_overdue(self) -> None:
        while self._deadlines and self._deadlines[0][0] <= self._now_s:
            _, id_, request_id = heapq.heappop(self._deadlines)
            sequence = self._sequences.get(request_id)
            if sequence is not None and sequence.id == id_:
                self._timed_out.append(self._end(sequence, FinishReason.TIMEOUT))

    def _continue_running(self) -> tuple[list[StepItem], int]:
        """Plan the running sequences; return their items and the tokens left in the budget."""
        items: list[StepItem] = []
        prompts: list[Sequence] = []
        num_left = self.config.max_tokens_per_step
        for sequence in list(self._running):
            if sequence.phase is not Phase.RUNNING:
                continue  # preempted for one before it
            if len(sequence.tokens) - sequence.num_computed > 1:
                prompts.append(sequence)
            elif self._make_room(sequence):
                items.append(self._plan_item(sequence, 1))
                num_left -= 1
        for sequence in prompts:
            if sequence.phase is Phase.RUNNING and num_left > 0:
                items.append(self._plan_item(sequence, num_left))
                num_left -= len(items[-1].tokens)
        return items, num_left

    def _make_room(self, sequence: Sequence) -> bool:
        """Give a sequence blocks for all its tokens; False if it had to give way itself."""
        # Members are visited by rank, so the last one is this one or not planned yet.
        num_tokens = len(sequence.tokens)
        while not self.kv.grow(sequence.table, num_tokens):
            victim = self._running.last
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self.kv.free(sequence.table)
        sequence.num_computed = 0
        sequence.phase = Phase.WAITING
        self._waiting.add(sequence)
        self._preempted.append(sequence.id)
        self._counters.num_preemptions += 1

    def _admit(self, items: list[StepItem], new: list[NewSequence], num_left: int) -> None:
        while num_left > 0 and len(self._waiting) > 0:
            if len(self._running) >= self.config.max_num_sequences:
                return
            sequence = self._waiting.first
            if not self._start(sequence):
                return
            items.append(self._plan_item(sequence, num_left))
            num_left -= len(items[-1].tokens)
            if not sequence.known:
                sequence.known = True
                new.append(sequence.introduction())

    def _start(self, sequence: Sequence) -> bool:
        """Move the first in line to the running ones; False if there are too few blocks."""
        reserve = int(self.config.admission_reserve * self.config.num_blocks)
        num_cached = self.kv.begin(
            sequence.table,
            sequence.tokens,
            reserve=reserve if len(self._running) else 0,
            reuse=sequence.may_reuse,
        )
        if num_cached is None:
            return False
        self._waiting.remove(sequence)
        self._running.add(sequence)
        sequence.phase = Phase.RUNNING
        sequence.num_computed = num_cached
        if not sequence.known:
            sequence.num_cached = num_cached
            counters = self._counters
            counters.num_prompt_tokens += sequence.num_prompt_tokens
            if self.config.enable_prefix_cache and sequence.may_reuse:
                counters.num_prefix_queried_tokens += sequence.num_prompt_tokens
                counters.num_prefix_hit_tokens += num_cached
        return True

    def _plan_item(self, sequence: Sequence, max_tokens: int) -> StepItem:
        start, end = sequence.num_computed, len(sequence.tokens)
        if end - start > 1:
            threshold = self.config.long_prefill_threshold
            end = min(end, start + max_tokens, start + (threshold or max_tokens))
        self._in_flight[sequence.id] = sequence
        tokens = tuple(sequence.tokens[start:end])
        sample = end == len(sequence.tokens)
        return StepItem(sequence.id, tokens, start, sequence.table.blocks, sample)

    def _settle_item(
        self, sequence: Sequence, item: StepItem, result: StepResult
    ) -> list[SequenceUpdate]:
        if item.id in result.errors:
            return [self._end(sequence, FinishReason.ERROR, result.errors[item.id])]
        sequence.num_computed += len(item.tokens)
        self.kv.commit(sequence.table, sequence.tokens, sequence.num_computed)
        if not item.sample:
            return []
        drawn = result.tokens.get(item.id)
        if not drawn:
            return [self._end(sequence, FinishReason.ERROR, "the runner returned no token")]
        return self._append(sequence, drawn)

    def _append(self, sequence: Sequence, drawn: tuple[Sampled, ...]) -> list[SequenceUpdate]:
        """Add drawn tokens until one ends the sequence."""
        updates = []
        for token, logprob, top in drawn:
            sequence.tokens.append(token)
            self._counters.num_generated_tokens += 1
            reason = sequence.finish_reason()
            updates.append(
                SequenceUpdate(
                    sequence.request.id, token, logprob, top, reason, sequence.num_cached
                )
            )
            if reason is not None:
                self._end(sequence, reason)
                break
        return updates
