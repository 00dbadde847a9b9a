"""What the next step computes: tokens of running sequences, chunks of prompts, admissions.

The order within a step keeps promises:

1. Sequences that miss a single token go first, so a long prompt never stalls running outputs.
2. Then running prompts, in chunks, then admissions as the policy says (`sched.policy`).
   Whom the policy chooses is never overtaken, so nobody starves.
3. Blocks for all known tokens are taken at admission; only outputs grow. When no block is free,
   the running sequence of the last rank is preempted: its blocks go back, and its prompt *and*
   output are computed again later. The first rank can take every block, so it always advances.
4. Guesses at what is drawn take only what tokens, prompts and blocks leave (`sched.drafts`).
"""

from __future__ import annotations

from weft.sched.budget import step_budget
from weft.sched.drafts import fit_draft, num_guesses_left
from weft.sched.plan import (
    PENDING,
    BlockTransfers,
    Draft,
    NewSequence,
    StateTransfers,
    StepItem,
    StepPlan,
)
from weft.sched.roster import Roster
from weft.sched.sequence import Phase, Sequence

_Moves = tuple[tuple[int, ...], BlockTransfers, StateTransfers]
_NO_MOVES: _Moves = ((), BlockTransfers(), StateTransfers())


class Planner:
    """Writes one plan after the other from the roster as it is."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self.config = roster.config
        self.kv = roster.kv
        self._step = 0
        # Of the plan under way: whose items it has, whom the runner meets, blocks to copy.
        self._planned: list[Sequence] = []
        self._new: list[NewSequence] = []
        self._copies: list[tuple[int, int]] = []

    def plan(self) -> tuple[StepPlan, list[Sequence]]:
        """Return the next plan and, item by item, the sequences it is about.

        It is without items if nothing can be computed before an earlier step is settled.
        """
        roster = self.roster
        self._planned = []
        num_preemptions = roster.counters.num_preemptions
        items, num_left = self._continue_running()
        # Whoever had to give way just now would be the first to come back and thrash.
        if roster.counters.num_preemptions == num_preemptions:
            self._admit(items, num_left)
        preempted, blocks, states = self._take_moves() if items else _NO_MOVES
        plan = StepPlan(
            self._step,
            tuple(items),
            tuple(self._new),
            tuple(roster.forgettable),
            preempted,
            blocks,
            states,
        )
        roster.forgettable.clear()
        self._new.clear()
        self._step += 1
        return plan, self._planned

    def _continue_running(self) -> tuple[list[StepItem], int]:
        """Plan the running sequences; return their items and the tokens left in the budget."""
        items: list[StepItem] = []
        prompts: list[Sequence] = []
        num_left, block_size = self._step_budget(), self.config.block_size
        num_guesses = most_guesses = self._num_guesses_left(num_left)
        running, num_running = Phase.RUNNING, len(self.roster.running)
        for sequence in tuple(self.roster.running):
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

    def _step_budget(self) -> int:
        config = self.config
        if config.tpot_target_s is None or config.step_time is None:
            return config.max_tokens_per_step
        return step_budget(
            self.roster.running, config.max_tokens_per_step, config.step_time, config.tpot_target_s
        )

    def _num_guesses_left(self, max_tokens: int) -> int:
        if not self.config.max_draft:
            return 0
        others_wait = len(self.roster.waiting) > 0
        return num_guesses_left(self.roster.running, max_tokens, others_wait=others_wait)

    def _make_room(self, sequence: Sequence, num_tokens: int) -> bool:
        """Give a sequence blocks for `num_tokens`; False if it had to give way itself."""
        # Members are visited by rank, so the last one is this one or not planned yet.
        while not self.kv.grow(sequence.table, num_tokens):
            victim = self.roster.running.last
            self.roster.preempt(victim)
            if victim is sequence:
                return False
        return True

    def _admit(self, items: list[StepItem], num_left: int) -> None:
        roster = self.roster
        while num_left > 0 and len(roster.waiting) > 0:
            if len(roster.running) >= self.config.max_num_sequences:
                return
            sequence = roster.policy.choose(roster.waiting)
            # What it drew last is not known yet, so it cannot be computed to its end.
            if sequence.num_in_flight or not roster.start(sequence):
                return
            items.append(self._plan_chunk(sequence, num_left))
            num_left -= len(items[-1].tokens)

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
        copy = self.roster.forks.take_copy(sequence)
        if copy is not None:
            self._copies.append(copy)

    def _take_moves(self) -> _Moves:
        """Return who gave way, and what moves before this step is computed."""
        preempted = tuple(self.roster.preempted)
        self.roster.preempted.clear()
        blocks, states = self.kv.take_transfers()
        if self._copies:
            blocks = blocks._replace(copies=tuple(self._copies))
            self.roster.forks.release(self._copies)
            self._copies.clear()
        return preempted, blocks, states
