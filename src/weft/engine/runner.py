"""``ModelRunner``: computes a ``StepPlan`` with a live module and draws the tokens it asks for.

The module is called as it is, so a trainer that holds the same module changes what the next step
computes; the runner owns the KV cache and the sampling state and nothing else. Plans come in order,
from one thread, which need not be the one that makes them.

Failures are kept to the request that caused them and become entries of ``StepResult.errors``. An
exception in the forward pass concerns every row; it goes up to the serving loop. Where steps
overlap, the next plan may already ask for more of a sequence that has failed; it gets the same
error again and is not computed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from weft.engine.adapters.step import StepAdapters
from weft.engine.batch import StepBatch
from weft.engine.draw import Draw, Drawer, Walk, draw_same
from weft.engine.forward import StepForward
from weft.engine.prompt_logprobs import PromptScorer
from weft.engine.states import StateSlots
from weft.engine.step_view import StepView
from weft.engine.table import SequenceTable
from weft.engine.tiers import BlockMover, LostSequences, TierSpace
from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.kv_cache import KVCache
from weft.ops import pad_rows
from weft.sched.plan import PENDING, Draft, NewSequence, StepItem, StepPlan, StepResult

log = logging.getLogger(__name__)

# Logits exist for so many bytes of rows at once; sampling is per row, so the cut changes nothing.
LOGITS_BYTES = 256 * 2**20


class StepProposer(Protocol):
    """Guesses at what follows a step's tokens; what ``ModelRunner`` asks of one."""

    @property
    def caches(self) -> Sequence[KVCache]:
        """Caches of its own that are indexed by the same blocks as the target's."""
        ...

    def propose(self, view: StepView) -> dict[int, Draft]:
        """Take in a step and return guesses by sequence."""
        ...

    def forget(self, ids: Sequence[int]) -> None:
        """Drop sequences that ended."""
        ...


class ModelRunner:
    """Runs plans on one module and one KV cache.

    Args:
        model: Called as it is.
        cache: Written and read; for a model with recurrent states it holds one slot more than
            sequences run at once.
        deterministic: Give a token the same bits however many others are in its step.
        proposer: Guesses at what follows; none draws one token at a time.
        draw: How a token is drawn where guesses follow.
        num_snapshots: Slots of recurrent states, the last ones of the cache, for copies.
        space: Slots of the tiers below the cache; none where there are none.
        adapters: What sequences with an adapter compute with.
    """

    def __init__(
        self,
        model: Decoder,
        cache: KVCache,
        *,
        deterministic: bool = False,
        proposer: StepProposer | None = None,
        draw: Draw = draw_same,
        num_snapshots: int = 0,
        space: TierSpace | None = None,
        adapters: StepAdapters | None = None,
    ) -> None:
        self.model = model
        self.cache = cache
        self.deterministic = deterministic
        self.proposer = proposer
        self.adapters = adapters
        self.table = SequenceTable()
        self.prompts = PromptScorer(model.spec.vocab_size)
        num_slots = cache.num_sequences - num_snapshots - 1
        self.states = StateSlots(num_slots) if cache.spec.has_states else None
        self.forward = StepForward(model, cache, self.states, adapters, deterministic=deterministic)
        self.num_computed_tokens = 0
        self.num_failed_proposals = 0
        rows_per_chunk = max(1, LOGITS_BYTES // (4 * model.spec.vocab_size))
        self._drawer = Drawer(self.table, self._logits, rows_per_chunk=rows_per_chunk, draw=draw)
        self._failed: dict[int, str] = {}
        self._lost = LostSequences()
        self.mover = BlockMover(self.caches, space)

    @property
    def caches(self) -> tuple[KVCache, ...]:
        """Every cache that is indexed by the scheduler's blocks."""
        return (self.cache, *(() if self.proposer is None else self.proposer.caches))

    def execute(self, plan: StepPlan) -> StepResult:
        """Forget ``plan.finished``, take in ``plan.new``, compute ``plan.items``."""
        self.forget(plan.finished)
        if self.states is not None:
            self.states.release(plan.preempted)
        self._take_in(plan.new)
        items, errors = self._resolve(plan.items)
        try:
            with torch.inference_mode():
                lost = self._move_blocks(plan, items)
                items = [item for item in items if item.id not in lost]
                result = StepResult({}, errors, {}, lost, self.mover.disk_error)
                if items:
                    self._compute(plan, items, result)
        except BaseException as error:
            self._failed.update(dict.fromkeys((item.id for item in items), _describe(error)))
            raise
        self._failed.update(result.errors)
        return result

    def forget(self, ids: Sequence[int]) -> None:
        """Drop the state of sequences that ended."""
        for id in ids:
            self.table.remove(id)
            self.prompts.remove(id)
            self._failed.pop(id, None)
        self._lost.release(ids)
        if self.states is not None:
            self.states.release(ids)
        if self.proposer is not None:
            self.proposer.forget(ids)
        if self.adapters is not None:
            self.adapters.forget(ids)

    def _take_in(self, new: Iterable[NewSequence]) -> None:
        for sequence in new:
            try:
                self.table.add(sequence)
                self.prompts.add(sequence)
                if self.adapters is not None:
                    self.adapters.take_in(sequence)
            except Exception as error:
                self._failed[sequence.id] = f"preparing to sample failed: {_describe(error)}"

    def _move_blocks(self, plan: StepPlan, items: Sequence[StepItem]) -> dict[int, str]:
        """Move blocks between tiers; return whose items miss one, and why."""
        self._lost.release(plan.preempted)
        lost_blocks = self.mover.execute(plan.blocks)
        return self._lost.reasons(items, lost_blocks, self.cache.block_size)

    def _resolve(self, items: Sequence[StepItem]) -> tuple[list[StepItem], dict[int, str]]:
        """Fill in the tokens that the step before has drawn; leave out sequences that failed."""
        errors = {item.id: self._failed[item.id] for item in items if item.id in self._failed}
        resolved = []
        for item in items:
            if item.tokens[-1] == PENDING and item.id not in errors:
                item = item._replace(tokens=(*item.tokens[:-1], self.table.last_token(item.id)))
            if item.id not in errors:
                resolved.append(item)
        return resolved, errors

    def _compute(self, plan: StepPlan, items: Sequence[StepItem], result: StepResult) -> None:
        if self.states is not None:
            self.states.take(item.id for item in items)
            self.states.restore(self.cache, plan.states)
        self.table.grammars.begin(item.id for item in items if item.sample)
        batch, hidden_TD = self.forward.run(items)
        if self.states is not None:
            self.states.save(self.cache, plan.states, (item.id for item in items))
        self.num_computed_tokens += sum(item.num_tokens for item in items)
        result.errors.update(self._score_prompts(items, hidden_TD))
        walks = self._draw(batch, hidden_TD, result)
        if self.proposer is not None:
            step = tuple(items), plan.new, plan.preempted, batch.paged, hidden_TD
            result.drafts.update(self._propose(StepView(*step, walks, self.table.grammars)))

    def _score_prompts(self, items: Sequence[StepItem], hidden_TD: Tensor) -> dict[int, str]:
        try:
            return self.prompts.score(items, hidden_TD, self._logits)
        except Exception as error:
            reason = f"scoring the prompt failed: {_describe(error)}"
            return {item.id: reason for item in items if item.id in self.prompts}

    def _draw(self, batch: StepBatch, hidden_TD: Tensor, result: StepResult) -> dict[int, Walk]:
        if not batch.draws.ids:
            return {}
        # Only rows that draw go through the head.
        rows_R = torch.from_numpy(batch.draws.rows_R).to(hidden_TD.device)
        walks = self._drawer.draw(hidden_TD.index_select(0, rows_R), batch.draws)
        for walk in walks:
            if walk.error is None:
                result.tokens[walk.id] = tuple(walk.drawn)
            else:
                result.errors[walk.id] = walk.error
        for row, walk in zip(batch.draws.rows_R[[walk.row for walk in walks]], walks, strict=True):
            if any(guess != place for place, guess in enumerate(walk.held)):
                self._straighten(batch.paged.slots_T[int(row) + 1 :], walk.held)
        return {walk.id: walk for walk in walks}

    def _straighten(self, slots_M: Tensor, held: Sequence[int]) -> None:
        """Move what the guesses that held have left behind to the slots of their positions."""
        old, new = slots_M[list(held)], slots_M[: len(held)]
        for layer in self.cache.tokens:
            for stored in layer.values():
                stored.index_copy_(0, new, stored.index_select(0, old))

    def _propose(self, view: StepView) -> dict[int, Draft]:
        assert self.proposer is not None
        try:
            return self.proposer.propose(view)
        except Exception:
            # Guesses only save time: without them the step is whole.
            self.num_failed_proposals += 1
            log.exception("guessing at the next tokens failed")
            return {}

    def _logits(self, hidden_RD: Tensor) -> Tensor:
        if not self.deterministic:
            return heads.logits(self.model, hidden_RD)
        return heads.logits(self.model, pad_rows(hidden_RD))[: len(hidden_RD)]


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
