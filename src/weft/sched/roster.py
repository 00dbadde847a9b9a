"""The live requests and the queue each is in: how they enter, start, give way and end.

What a move between queues brings along is done here and nowhere else: blocks are taken and given
back, the policy and the counters hear of it, and what the runner has to be told is noted until the
next plan takes it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence as Ids

from weft.sched.config import SchedulerConfig
from weft.sched.forks import Forks, can_share, is_ready, is_shared
from weft.sched.manager import BlockTable, KVManager
from weft.sched.plan import SequenceUpdate
from weft.sched.policy import make_policy
from weft.sched.sequence import Phase, Sequence, ending_tokens
from weft.sched.stats import Counters
from weft.sched.waiting import EndingRate, RankedQueue
from weft.spec.request import FinishReason, Request


class Roster:
    """Every live request, in the one queue that its phase names.

    Args:
        config: Sizes and limits.
        kv: Whose blocks the sequences get.
        eos_ids: The model's own end tokens.

    Attributes:
        sequences: All of them, by the ids of their requests.
        waiting: Those that are to be admitted.
        running: Those that have blocks.
        forks: Those that wait for their parents.
        policy: Who is admitted next.
        counters: Totals of whatever happens to any of them.
        endings: How soon a place becomes free.
        forgettable: Ended sequences that the runner still remembers.
        preempted: Those the runner knows that gave their blocks back since the last plan.
        now_s: The time of the call under way.
    """

    def __init__(self, config: SchedulerConfig, kv: KVManager, eos_ids: Ids[int]) -> None:
        self.config = config
        self.kv = kv
        self.sequences: dict[str, Sequence] = {}
        self.waiting = RankedQueue()
        self.running = RankedQueue()
        self.forks = Forks(kv)
        self.policy = make_policy(config.policy, kv, config.max_overtakes)
        self.counters = Counters()
        self.endings = EndingRate()
        self.forgettable: list[int] = []
        self.preempted: list[int] = []
        self.now_s = 0.0
        self._eos_ids = tuple(eos_ids)
        self._deadlines: list[tuple[float, int, str]] = []
        self._seeds = random.Random(config.seed)
        self._num_entered = 0

    @property
    def num_waiting(self) -> int:
        """Requests in the queue, forks that wait for their parents included."""
        return len(self.waiting) + len(self.forks)

    def enter(self, request: Request) -> None:
        """Let a request begin with its parent's blocks, wait for its parent, or wait."""
        sequence = self._new_sequence(request)
        self.sequences[request.id] = sequence
        if request.deadline_s is not None:
            heapq.heappush(self._deadlines, (request.deadline_s, sequence.id, request.id))
        sequence.rank = self.policy.rank(sequence)
        if not is_ready(sequence):
            self.forks.hold(sequence)
            return
        self._enqueue(sequence)
        # At once: its parent may end before the next step.
        if (
            is_shared(sequence, self.kv)
            and self.waiting.first is sequence
            and len(self.running) < self.config.max_num_sequences
        ):
            self.start(sequence)

    def enqueue_ready_forks(self) -> None:
        """Let those wait like any other whose parents have computed their prompts."""
        for child in self.forks.take_ready():
            child.phase = Phase.WAITING
            self._enqueue(child)

    def start(self, sequence: Sequence) -> bool:
        """Move a sequence to the running ones; False if there are too few blocks."""
        reserve = int(self.config.admission_reserve * self.config.num_blocks)
        reserve = reserve if len(self.running) else 0
        if is_shared(sequence, self.kv):
            num_cached = num_certain = self.forks.begin(sequence, reserve=reserve)
        else:
            num_cached = self.kv.begin(
                sequence.table, sequence.tokens, reserve=reserve, reuse=sequence.may_reuse
            )
            # What is to be read from a tier may turn out to be lost.
            num_certain = sequence.table.num_committed * self.config.block_size
        if num_cached is None or num_certain is None:
            return False
        sequence.parent = None
        self.waiting.remove(sequence)
        self.policy.admitted(sequence, self.waiting)
        self.running.add(sequence)
        sequence.phase = Phase.RUNNING
        sequence.num_computed, sequence.num_planned = num_certain, num_cached
        self.kv.restore_state(sequence.table, sequence.id, num_cached)
        if not sequence.known:
            self._count_prompt(sequence, num_cached)
        return True

    def preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's blocks; it waits and is computed again."""
        self.running.remove(sequence)
        self.forks.cancel(sequence)
        self.kv.free(sequence.table)
        sequence.num_computed = sequence.num_planned = 0
        sequence.num_stale = sequence.num_in_flight
        sequence.is_proven = False
        sequence.draft = None
        sequence.phase = Phase.WAITING
        self.waiting.add(sequence)
        if sequence.known:
            self.preempted.append(sequence.id)
        self.counters.num_preemptions += 1

    def end(
        self, sequence: Sequence, reason: FinishReason, error: str | None = None
    ) -> SequenceUpdate:
        """End a live request, wherever it is; return its last update."""
        del self.sequences[sequence.request.id]
        match sequence.phase:
            case Phase.HELD:
                self.forks.remove(sequence)
            case Phase.WAITING:
                self.waiting.remove(sequence)
            case _:
                self.running.remove(sequence)
                self.forks.cancel(sequence)
        sequence.phase = Phase.FINISHED
        sequence.parent = None
        self.policy.ended(sequence)
        if sequence.known:
            self.forgettable.append(sequence.id)
        if sequence.id in self.preempted:
            self.preempted.remove(sequence.id)
        # Steps in flight may still write these blocks, but before any step that is planned later.
        self.kv.free(sequence.table)
        self.counters.num_finished[reason] += 1
        self.endings.note(self.now_s)
        return SequenceUpdate(
            sequence.request.id,
            finish_reason=reason,
            num_cached_tokens=sequence.num_cached,
            error=error,
        )

    def end_overdue(self) -> list[SequenceUpdate]:
        """End the requests whose deadline has passed; return their last updates."""
        updates: list[SequenceUpdate] = []
        while self._deadlines and self._deadlines[0][0] <= self.now_s:
            _, id_, request_id = heapq.heappop(self._deadlines)
            sequence = self.sequences.get(request_id)
            if sequence is not None and sequence.id == id_:
                updates.append(self.end(sequence, FinishReason.TIMEOUT))
        return updates

    def _enqueue(self, sequence: Sequence) -> None:
        self.policy.enqueued(sequence, self.waiting)
        self.waiting.add(sequence)

    def _new_sequence(self, request: Request) -> Sequence:
        sampling, limit = request.sampling, self.config.context_limit
        id_ = self._num_entered
        self._num_entered += 1
        if sampling.max_tokens is not None:
            limit = min(limit, len(request.tokens) + sampling.max_tokens)
        sequence = Sequence(
            id=id_,
            request=request,
            seed=self._seeds.getrandbits(63) if sampling.seed is None else sampling.seed,
            stop_token_ids=ending_tokens(request, self._eos_ids),
            max_length=limit,
            tokens=list(request.tokens),
            table=BlockTable(salt=request.cache_salt, adapter=request.adapter),
            parent=self._find_parent(request),
        )
        if sequence.parent is not None and not can_share(sequence, sequence.parent):
            sequence.parent = None
        return sequence

    def _find_parent(self, request: Request) -> Sequence | None:
        """Return the live request it is forked from, if the two can share anything."""
        if request.fork_of is None or not self.config.shares_forks:
            return None
        return self.sequences.get(request.fork_of)

    def _count_prompt(self, sequence: Sequence, num_cached: int) -> None:
        sequence.num_cached = num_cached
        self.counters.num_prompt_tokens += sequence.num_prompt_tokens
        if self.config.enable_prefix_cache and sequence.may_reuse:
            self.counters.num_prefix_queried_tokens += sequence.num_prompt_tokens
            self.counters.num_prefix_hit_tokens += num_cached
