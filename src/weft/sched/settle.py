"""What a step's result means for the sequences it computed: tokens, blocks, endings."""

from __future__ import annotations

from weft.sched.plan import Sampled, SequenceUpdate, StepItem, StepPlan, StepResult
from weft.sched.roster import Roster
from weft.sched.sequence import Phase, Sequence
from weft.spec.request import FinishReason


class Settler:
    """Takes in results, in the order of their plans."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self.config = roster.config
        self.kv = roster.kv

    def settle(
        self, plan: StepPlan, sequences: list[Sequence], result: StepResult
    ) -> list[SequenceUpdate]:
        """Move the sequences of a plan's items on; return the news of each that is live."""
        updates: list[SequenceUpdate] = []
        num_guesses, kv = 0, self.kv
        for item, sequence in zip(plan.items, sequences, strict=True):
            sequence.num_in_flight -= 1
            if item.draft is not None:
                num_guesses += len(item.draft.tokens)
            if sequence.phase is not Phase.FINISHED:
                self._settle_item(sequence, item, result, updates)
            if kv.snapshots is not None:
                kv.settle_state(sequence.id, item.start + len(item.tokens), None)
        if result.disk_error is not None:
            kv.disable_disk()
        if plan.items:
            counters = self.roster.counters
            counters.num_steps += 1
            num_tokens = sum([len(item.tokens) for item in plan.items])
            counters.num_computed_tokens += num_tokens + num_guesses
        return updates

    def _settle_item(
        self,
        sequence: Sequence,
        item: StepItem,
        result: StepResult,
        updates: list[SequenceUpdate],
    ) -> None:
        id_ = sequence.id
        if result.errors and id_ in result.errors:
            updates.append(self.roster.end(sequence, FinishReason.ERROR, result.errors[id_]))
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
            error = "the runner returned no token"
            updates.append(self.roster.end(sequence, FinishReason.ERROR, error))
            return
        reason = self._append(sequence, drawn, updates) if drawn else None
        if sequence.num_stale:
            sequence.num_stale -= 1
        else:
            self._keep(sequence, item, drawn, result)
        if reason is not None:
            self.roster.end(sequence, reason)

    def _restart(self, sequence: Sequence, item: StepItem) -> None:
        """Compute a sequence again whose item was left out, as a tier had lost its blocks."""
        if sequence.num_stale:
            sequence.num_stale -= 1
            return
        self.kv.forget(sequence.table, item.start)
        self.roster.preempt(sequence)

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
        num_drawn, roster = len(tokens) - num_known, self.roster
        roster.counters.num_generated_tokens += num_drawn
        roster.policy.drew(sequence, num_drawn)
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
