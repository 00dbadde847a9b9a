"""The scheduler: which tokens the next step computes, and what its result means.

A request is a row of tokens of which some are computed; every step computes a few more of as many
requests as the token budget, the KV blocks and `max_num_sequences` allow. Whatever a step cannot
finish, the next one continues, so there is no prefill and no decode mode (iteration-level
scheduling: Yu et al. 2022, Orca; chunked prefill with mixed batches: Agrawal et al. 2024,
arXiv:2403.02310).

The order within a step keeps promises:

1. Sequences that miss a single token go first, so a long prompt never stalls running outputs.
2. Then running prompts, in chunks, then admissions as the policy says (`sched.policy`).
   Whom the policy chooses is never overtaken, so nobody starves.
3. Blocks for all known tokens are taken at admission; only outputs grow. When no block is free,
   the running sequence of the last rank is preempted: its blocks go back, and its prompt *and*
   output are computed again later. The first rank can take every block, so it always advances.
4. Guesses at what is drawn take only what tokens, prompts and blocks leave (`sched.drafts`).

Plans may be made before earlier ones are settled. What is known then is counted when it is planned
(`num_planned`); the token that a step in flight draws is `PENDING` in the next. The runner computes
plans in their order, so blocks can be handed on as soon as nobody plans to read them. Items of a
sequence that gave its blocks back meanwhile are *stale*: their tokens count, their keys and values
do not.
"""

from __future__ import annotations

import copy
import heapq
import random
from collections import Counter, deque
from collections.abc import Sequence as Ids

from weft.core.errors import ConfigError
from weft.sched.admission import check_number, check_prompt, duplicate_id, queue_full
from weft.sched.budget import step_budget
from weft.sched.config import SchedulerConfig
from weft.sched.drafts import fit_draft, num_guesses_left
from weft.sched.forks import Forks, can_share, is_ready, is_shared
from weft.sched.invariants import check_progress, check_queues
from weft.sched.manager import BlockTable, KVManager
from weft.sched.plan import (
    PENDING,
    BlockTransfers,
    Draft,
    NewSequence,
    Sampled,
    SequenceUpdate,
    StateTransfers,
    StepItem,
    StepPlan,
    StepResult,
)
from weft.sched.policy import make_policy
from weft.sched.sequence import Phase, Sequence, ending_tokens
from weft.sched.stats import Counters, SchedulerStats
from weft.sched.waiting import EndingRate, RankedQueue
from weft.spec.request import FinishReason, Request

_Moves = tuple[tuple[int, ...], BlockTransfers, StateTransfers]
_NO_MOVES: _Moves = ((), BlockTransfers(), StateTransfers())


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
        self.eos_ids = tuple(eos_ids)
        self.kv = KVManager(
            config.num_blocks,
            config.block_size,
            enable_prefix_cache=config.enable_prefix_cache,
            ring_blocks=config.ring_blocks,
            sink_blocks=config.sink_blocks,
            tiers=config.make_tiers(),
            snapshots=config.make_snapshots(),
        )
        self._sequences: dict[str, Sequence] = {}
        self._policy = make_policy(config.policy, self.kv, config.max_overtakes)
        self._forks = Forks(self.kv)
        self._waiting = RankedQueue()
        self._running = RankedQueue()
        self._deadlines: list[tuple[float, int, str]] = []
        self._unsettled: deque[tuple[StepPlan, list[Sequence]]] = deque()
        self._planned: list[Sequence] = []
        self._new: list[NewSequence] = []
        self._copies: list[tuple[int, int]] = []
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

    @property
    def num_waiting(self) -> int:
        """Requests in the queue, forks that wait for their parents included."""
        return len(self._waiting) + len(self._forks)

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
        ids = set(self._sequences)
        for request in requests:
            if request.id in ids:
                raise duplicate_id(request)
            ids.add(request.id)
            check_prompt(request, self.config)
        check_number(len(requests), self.config)
        if self.num_waiting + len(requests) > self.config.max_waiting:
            self._counters.num_refused += len(requests)
            raise queue_full(self.num_waiting, self._endings.retry_after_s())
        for request in requests:
            self._enqueue(self._new_sequence(request))

    def finish(
        self, request_id: str, reason: FinishReason, *, error: str | None = None
    ) -> SequenceUpdate | None:
        """End a request; the one way all endings go. Ending it again does nothing.

        Its blocks are given back at once; what steps in flight compute for it is dropped.

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
            for sequence in reversed(list(self._running)):
                if not sequence.is_proven and sequence.num_in_flight == 0:
                    self._preempt(sequence)
        self.kv.set_weight_version(weight_version)

    def flush_prefixes(self) -> None:
        """Forget every cached prefix; running requests give theirs back and start again."""
        self.retract()
        self.kv.flush()

    def retract(self) -> tuple[str, ...]:
        """Take the blocks of all running requests; they are computed again later.

        Tokens in flight still count. Returns the requests' ids.
        """
        running = list(self._running)
        for sequence in reversed(running):
            self._preempt(sequence)
        return tuple(sequence.request.id for sequence in running)

    # One step.

    def schedule(self, now_s: float) -> StepPlan:
        """Choose what the next step computes; earlier ones need not be settled.

        A plan is without items if nothing can be computed before an earlier one is settled.

        Args:
            now_s: The clock; requests whose deadline has passed end with TIMEOUT.
        """
        self._now_s = now_s
        self._end_overdue()
        self._planned = []
        if len(self._forks):
            self._queue_ready_forks()
        num_preemptions = self._counters.num_preemptions
        items, num_left = self._continue_running()
        # Whoever had to give way just now would be the first to come back and thrash.
        if self._counters.num_preemptions == num_preemptions:
            self._admit(items, num_left)
        assert items or self._unsettled or not self._sequences, "nothing can be scheduled"
        preempted, blocks, states = self._take_moves() if items else _NO_MOVES
        plan = StepPlan(
            self._step,
            tuple(items),
            tuple(self._new),
            tuple(self._forgettable),
            preempted,
            blocks,
            states,
        )
        self._forgettable.clear()
        self._new.clear()
        self._unsettled.append((plan, self._planned))
        self._step += 1
        return plan

    def settle(self, plan: StepPlan, result: StepResult, now_s: float) -> list[SequenceUpdate]:
        """Take in what the runner computed; return the news of every request that moved.

        Plans are settled in the order they were scheduled in.
        """
        self._now_s = now_s
        oldest, sequences = self._unsettled.popleft()
        assert plan is oldest, f"step {oldest.step} comes before step {plan.step}"
        updates, self._timed_out = self._timed_out, []
        num_guesses = 0
        for item, sequence in zip(plan.items, sequences, strict=True):
            sequence.num_in_flight -= 1
            if item.draft is not None:
                num_guesses += len(item.draft.tokens)
            if sequence.phase is not Phase.FINISHED:
                self._settle_item(sequence, item, result, updates)
            if self.kv.snapshots is not None:
                self.kv.settle_state(sequence.id, item.start + len(item.tokens), None)
        if result.disk_error is not None:
            self.kv.disable_disk()
        if plan.items:
            self._counters.num_steps += 1
            num_tokens = sum([len(item.tokens) for item in plan.items])
            self._counters.num_computed_tokens += num_tokens + num_guesses
        return updates

    # Inspection.

    def stats(self) -> SchedulerStats:
        """Return sizes now and totals so far."""
        pool = self.kv.pool
        return SchedulerStats(
            num_running=len(self._running),
            num_waiting=self.num_waiting,
            num_blocks=pool.num_blocks,
            num_used_blocks=pool.num_blocks - pool.num_free,
            num_cached_blocks=pool.num_cached,
            num_blank_blocks=pool.num_free - pool.num_cached,
            counters=copy.deepcopy(self._counters),
            tiers=None if self.kv.tiers is None else self.kv.tiers.stats(),
            snapshots=None if self.kv.snapshots is None else self.kv.snapshots.stats(),
        )

    def check(self) -> None:
        """Assert every invariant of queues and blocks. Slow; for tests and idle times."""
        in_flight = Counter(s for _, planned in self._unsettled for s in planned)
        check_queues(self._sequences, self._waiting, self._running, self._forks, self.config)
        self._policy.check()
        check_progress(self._sequences.values(), in_flight, self.config.block_size)
        pinned = (BlockTable(blocks=(source,)) for source in self._forks.sources)
        self.kv.check((*(s.table for s in self._running), *pinned))

    def _enqueue(self, sequence: Sequence) -> None:
        """Let a new request begin with its parent's blocks, wait for its parent, or wait."""
        request = sequence.request
        self._sequences[request.id] = sequence
        if request.deadline_s is not None:
            heapq.heappush(self._deadlines, (request.deadline_s, sequence.id, request.id))
        sequence.rank = self._policy.rank(sequence)
        if not is_ready(sequence):
            self._forks.hold(sequence)
            return
        self._policy.enqueued(sequence, self._waiting)
        self._waiting.add(sequence)
        # At once: its parent may end before the next step.
        if (
            is_shared(sequence, self.kv)
            and self._waiting.first is sequence
            and len(self._running) < self.config.max_num_sequences
        ):
            self._start(sequence)

    def _queue_ready_forks(self) -> None:
        for child in self._forks.take_ready():
            child.phase = Phase.WAITING
            self._policy.enqueued(child, self._waiting)
            self._waiting.add(child)

    def _find_parent(self, request: Request) -> Sequence | None:
        """Return the live request it is forked from, if the two can share anything."""
        if request.fork_of is None or not self.config.shares_forks:
            return None
        return self._sequences.get(request.fork_of)

    def _new_sequence(self, request: Request) -> Sequence:
        sampling, limit = request.sampling, self.config.context_limit
        id_ = self._num_submitted
        self._num_submitted += 1
        if sampling.max_tokens is not None:
            limit = min(limit, len(request.tokens) + sampling.max_tokens)
        sequence = Sequence(
            id=id_,
            request=request,
            seed=self._seeds.getrandbits(63) if sampling.seed is None else sampling.seed,
            stop_token_ids=ending_tokens(request, self.eos_ids),
            max_length=limit,
            tokens=list(request.tokens),
            table=BlockTable(salt=request.cache_salt, adapter=request.adapter),
            parent=self._find_parent(request),
        )
        if sequence.parent is not None and not can_share(sequence, sequence.parent):
            sequence.parent = None
        return sequence

    def _end(
        self, sequence: Sequence, reason: FinishReason, error: str | None = None
    ) -> SequenceUpdate:
        del self._sequences[sequence.request.id]
        match sequence.phase:
            case Phase.HELD:
                self._forks.remove(sequence)
            case Phase.WAITING:
                self._waiting.remove(sequence)
            case _:
                self._running.remove(sequence)
                self._forks.cancel(sequence)
        sequence.phase = Phase.FINISHED
        sequence.parent = None
        self._policy.ended(sequence)
        if sequence.known:
            self._forgettable.append(sequence.id)
        if sequence.id in self._preempted:
            self._preempted.remove(sequence.id)
        # Steps in flight may still write these blocks, but before any step that is planned later.
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
        num_left, block_size = self._step_budget(), self.config.block_size
        num_guesses = most_guesses = self._num_guesses_left(num_left)
        running, num_running = Phase.RUNNING, len(self._running)
        for sequence in tuple(self._running):
            # It may have given way to one before it, or its next position may not be known yet.
            if sequence.phase is not running or sequence.awaits_settle:
                continue
            end = len(sequence.tokens) + sequence.num_pending
            if end - sequence.num_planned > 1:
                prompts.append(sequence)
            elif end < sequence.max_length:
                num_slots = len(sequence.table.blocks) * block_size
                if end > num_slots and not self._make_room(sequence, end):
                    continue
                draft = None
                if sequence.draft is not None:
                    draft = fit_draft(sequence, num_guesses, num_running, self.kv, self.config)
                    num_guesses -= 0 if draft is None else len(draft.tokens)
                items.append(self._plan_token(sequence, draft))
        num_left -= len(items) + most_guesses - num_guesses
        for sequence in prompts:
            if sequence.phase is Phase.RUNNING and num_left > 0:
                items.append(self._plan_chunk(sequence, num_left))
                num_left -= len(items[-1].tokens)
        return items, num_left

    def _num_guesses_left(self, max_tokens: int) -> int:
        if not self.config.max_draft:
            return 0
        return num_guesses_left(self._running, max_tokens, others_wait=len(self._waiting) > 0)

    def _step_budget(self) -> int:
        config = self.config
        if config.tpot_target_s is None or config.step_time is None:
            return config.max_tokens_per_step
        return step_budget(
            self._running, config.max_tokens_per_step, config.step_time, config.tpot_target_s
        )

    def _make_room(self, sequence: Sequence, num_tokens: int) -> bool:
        """Give a sequence blocks for `num_tokens`; False if it had to give way itself."""
        # Members are visited by rank, so the last one is this one or not planned yet.
        while not self.kv.grow(sequence.table, num_tokens):
            victim = self._running.last
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self._forks.cancel(sequence)
        self.kv.free(sequence.table)
        sequence.num_computed = sequence.num_planned = 0
        sequence.num_stale = sequence.num_in_flight
        sequence.is_proven = False
        sequence.draft = None
        sequence.phase = Phase.WAITING
        self._waiting.add(sequence)
        if sequence.known:
            self._preempted.append(sequence.id)
        self._counters.num_preemptions += 1

    def _admit(self, items: list[StepItem], num_left: int) -> None:
        while num_left > 0 and len(self._waiting) > 0:
            if len(self._running) >= self.config.max_num_sequences:
                return
            sequence = self._policy.choose(self._waiting)
            # What it drew last is not known yet, so it cannot be computed to its end.
            if sequence.num_in_flight or not self._start(sequence):
                return
            items.append(self._plan_chunk(sequence, num_left))
            num_left -= len(items[-1].tokens)

    def _start(self, sequence: Sequence) -> bool:
        """Move a sequence to the running ones; False if there are too few blocks."""
        reserve = int(self.config.admission_reserve * self.config.num_blocks)
        reserve = reserve if len(self._running) else 0
        if is_shared(sequence, self.kv):
            num_cached = num_certain = self._forks.begin(sequence, reserve=reserve)
        else:
            num_cached = self.kv.begin(
                sequence.table, sequence.tokens, reserve=reserve, reuse=sequence.may_reuse
            )
            # What is to be read from a tier may turn out to be lost.
            num_certain = sequence.table.num_committed * self.config.block_size
        if num_cached is None or num_certain is None:
            return False
        sequence.parent = None
        self._waiting.remove(sequence)
        self._policy.admitted(sequence, self._waiting)
        self._running.add(sequence)
        sequence.phase = Phase.RUNNING
        sequence.num_computed, sequence.num_planned = num_certain, num_cached
        self.kv.restore_state(sequence.table, sequence.id, num_cached)
        if not sequence.known:
            sequence.num_cached = num_cached
            counters = self._counters
            counters.num_prompt_tokens += sequence.num_prompt_tokens
            if self.config.enable_prefix_cache and sequence.may_reuse:
                counters.num_prefix_queried_tokens += sequence.num_prompt_tokens
                counters.num_prefix_hit_tokens += num_cached
        return True

    def _plan_token(self, sequence: Sequence, draft: Draft | None) -> StepItem:
        """Compute the token drawn last, and guesses at what follows it."""
        start = sequence.num_planned
        token = PENDING if sequence.num_pending else sequence.tokens[-1]
        sequence.num_planned = start + 1
        sequence.num_pending += 1
        sequence.num_in_flight += 1
        sequence.awaits_settle = draft is not None
        self._planned.append(sequence)
        if not sequence.known:
            self._introduce(sequence)
        if self.kv.snapshots is not None:
            self.kv.save_state(sequence.table, sequence.id, start + 1)
        return StepItem(sequence.id, (token,), start, sequence.table.blocks, True, draft)

    def _plan_chunk(self, sequence: Sequence, max_tokens: int) -> StepItem:
        """Compute as many known tokens as fit."""
        start, end = sequence.num_planned, len(sequence.tokens)
        threshold = self.config.long_prefill_threshold
        end = min(end, start + max_tokens, start + (threshold or max_tokens))
        end = self.kv.clip(start, end)
        sample = end == len(sequence.tokens)
        sequence.num_planned = end
        sequence.num_pending += sample
        sequence.num_in_flight += 1
        self._planned.append(sequence)
        if not sequence.known:
            self._introduce(sequence)
        self.kv.save_state(sequence.table, sequence.id, end)
        tokens = tuple(sequence.tokens[start:end])
        return StepItem(sequence.id, tokens, start, sequence.table.blocks, sample)

    def _introduce(self, sequence: Sequence) -> None:
        """Tell the runner of a sequence with its first item, and of the block to begin with."""
        sequence.known = True
        self._new.append(sequence.introduction())
        copy = self._forks.take_copy(sequence)
        if copy is not None:
            self._copies.append(copy)

    def _take_moves(self) -> _Moves:
        """Return who gave way, and what moves before this step is computed."""
        preempted = tuple(self._preempted)
        self._preempted.clear()
        blocks, states = self.kv.take_transfers()
        if self._copies:
            blocks = blocks._replace(copies=tuple(self._copies))
            self._forks.release(self._copies)
            self._copies.clear()
        return preempted, blocks, states

    def _settle_item(
        self,
        sequence: Sequence,
        item: StepItem,
        result: StepResult,
        updates: list[SequenceUpdate],
    ) -> None:
        id_ = sequence.id
        if result.errors and id_ in result.errors:
            updates.append(self._end(sequence, FinishReason.ERROR, result.errors[id_]))
            return
        if sequence.num_in_flight == 0:
            sequence.awaits_settle = False
        drawn: tuple[Sampled, ...] = ()
        if item.sample:
            drawn = result.tokens.get(id_, ())
            sequence.num_pending -= 1
        if result.lost and id_ in result.lost:
            self._restart(sequence, item)
            return
        if item.sample and not drawn:
            updates.append(self._end(sequence, FinishReason.ERROR, "the runner returned no token"))
            return
        reason = self._append(sequence, drawn, updates) if drawn else None
        if sequence.num_stale:
            sequence.num_stale -= 1
        else:
            self._keep(sequence, item, drawn, result)
        if reason is not None:
            self._end(sequence, reason)

    def _restart(self, sequence: Sequence, item: StepItem) -> None:
        """Compute a sequence again whose item was left out, as a tier had lost its blocks."""
        if sequence.num_stale:
            sequence.num_stale -= 1
            return
        self.kv.forget(sequence.table, item.start)
        self._preempt(sequence)

    def _append(
        self, sequence: Sequence, drawn: tuple[Sampled, ...], updates: list[SequenceUpdate]
    ) -> FinishReason | None:
        """Add drawn tokens until one ends the sequence; return why it does."""
        reason, tokens = None, sequence.tokens
        request_id, num_cached, num_known = sequence.request.id, sequence.num_cached, len(tokens)
        for token, logprob, top in drawn:
            tokens.append(token)
            if token in sequence.stop_token_ids or len(tokens) >= sequence.max_length:
                reason = sequence.finish_reason()
            updates.append(SequenceUpdate(request_id, token, logprob, top, reason, num_cached))
            if reason is not None:
                break
        self._counters.num_generated_tokens += len(tokens) - num_known
        self._policy.drew(sequence, len(tokens) - num_known)
        return reason

    def _keep(
        self, sequence: Sequence, item: StepItem, drawn: tuple[Sampled, ...], result: StepResult
    ) -> None:
        """Note what is in the cache now: the item's tokens and the guesses that held."""
        kv, table = self.kv, sequence.table
        num_computed = item.start + len(item.tokens)
        if item.draft is not None:
            assert len(drawn) <= len(item.draft.tokens) + 1, "more tokens than guesses and one"
            num_computed = min(num_computed + len(drawn) - 1, len(sequence.tokens))
        sequence.num_computed = num_computed
        sequence.is_proven = True
        if num_computed // kv.block_size > table.num_committed:
            kv.commit(table, sequence.tokens, num_computed)
        if kv.snapshots is not None:
            kv.settle_state(sequence.id, item.start + len(item.tokens), table)
        if item.draft is not None:
            sequence.num_planned = num_computed
            kv.truncate(table, len(sequence.tokens))
        if self.config.max_draft and sequence.num_in_flight == 0:
            sequence.draft = result.drafts.get(item.id)
