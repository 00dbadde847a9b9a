"""``ModelRunner``: computes a ``StepPlan`` with a live module and draws the tokens it asks for.

The module is called as it is, so a trainer that holds the same module changes what the next step
computes; the runner owns the KV cache and the sampling state and nothing else.

Failures are kept to the request that caused them: rows whose distribution is not finite, and rows
whose sampling raises, become entries of ``StepResult.errors``. An exception in the forward pass
concerns every row; it goes up to the serving loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from weft.engine.batch import StepBatch, build_batch, pad_items
from weft.engine.grammar.state import GrammarError
from weft.engine.prompt_logprobs import PromptScorer
from weft.engine.sampling import pipeline
from weft.engine.sampling.logprobs import alternatives
from weft.engine.states import StateSlots
from weft.engine.table import SequenceTable
from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.nn.kv_cache import KVCache
from weft.ops import pad_rows
from weft.sched.plan import Sampled, StepPlan, StepResult

# Logits exist for so many bytes of rows at once; sampling is per row, so the cut changes nothing.
LOGITS_BYTES = 256 * 2**20

_NOT_FINITE = "the model's probabilities are not finite: NaN or infinite logits"
_NO_TOKEN = (
    "no token can be drawn: the grammar and the other restrictions exclude each other, or "
    + _NOT_FINITE
)


class ModelRunner:
    """Runs plans on one module and one KV cache.

    Args:
        model: Called as it is.
        cache: Written and read; for a model with recurrent states it holds one slot more than
            sequences run at once.
        deterministic: Give a token the same bits however many others are in its step.
    """

    def __init__(self, model: Decoder, cache: KVCache, *, deterministic: bool = False) -> None:
        self.model = model
        self.cache = cache
        self.deterministic = deterministic
        self.table = SequenceTable()
        self.prompts = PromptScorer(model.spec.vocab_size)
        self.states = StateSlots(cache.num_sequences - 1) if model.spec.has_states else None
        self.num_computed_tokens = 0
        bytes_per_row = 4 * model.spec.vocab_size
        self._rows_per_chunk = max(1, LOGITS_BYTES // bytes_per_row)

    def execute(self, plan: StepPlan) -> StepResult:
        """Forget ``plan.finished``, take in ``plan.new``, compute ``plan.items``."""
        self.forget(plan.finished)
        for new in plan.new:
            self.table.add(new)
            self.prompts.add(new)
        with torch.inference_mode():
            items = pad_items(plan.items) if self.deterministic else plan.items
            slots = self._state_slots(plan, num_copies=len(items) - len(plan.items))
            batch = build_batch(items, self.cache.block_size, self.model.device, slots)
            context = StepContext.paged(self.cache, batch.paged)
            hidden_TD = self.model(batch.tokens_T, context)
            self.num_computed_tokens += sum(len(item.tokens) for item in plan.items)
            result = StepResult({}, self.prompts.score(plan.items, hidden_TD, self._logits))
            if batch.sample_ids:
                # Only rows that sample go through the head.
                self._sample(hidden_TD.index_select(0, batch.sample_rows_R), batch, result)
            return result

    def forget(self, ids: Sequence[int]) -> None:
        """Drop the state of sequences that ended."""
        for id in ids:
            self.table.remove(id)
            self.prompts.remove(id)
        if self.states is not None:
            self.states.release(ids)

    def _state_slots(self, plan: StepPlan, num_copies: int) -> list[int] | None:
        if self.states is None:
            return None
        self.states.release(plan.preempted)
        slots = self.states.take(item.id for item in plan.items)
        return slots + [self.states.scratch] * num_copies

    def _sample(self, hidden_RD: Tensor, batch: StepBatch, result: StepResult) -> None:
        ids, positions_R = batch.sample_ids, batch.sample_positions_R
        for rows in self._chunks(len(ids)):
            try:
                self._sample_rows(hidden_RD[rows], ids[rows], positions_R[rows], result)
            except Exception:
                self._sample_one_by_one(hidden_RD[rows], ids[rows], positions_R[rows], result)
        self._record(result)

    def _record(self, result: StepResult) -> None:
        for id, drawn in list(result.tokens.items()):
            try:
                for sampled in drawn:
                    self.table.record(id, sampled.token)
            except Exception as error:
                del result.tokens[id]
                result.errors[id] = _reason(error)

    def _sample_one_by_one(
        self, hidden_RD: Tensor, ids: Sequence[int], positions_R: np.ndarray, result: StepResult
    ) -> None:
        """Find out whose sampling failed; all others get what they would have got."""
        for row, id in enumerate(ids):
            one = slice(row, row + 1)
            try:
                self._sample_rows(hidden_RD[one], ids[one], positions_R[one], result)
            except Exception as error:
                result.errors[id] = _reason(error)

    def _sample_rows(
        self, hidden_RD: Tensor, ids: Sequence[int], positions_R: np.ndarray, result: StepResult
    ) -> None:
        params = self.table.sampling_batch(ids, positions_R)
        draws = pipeline.sample(self._logits(hidden_RD), params)
        tops = alternatives(draws, params)
        tokens, logprobs = draws.tokens_R.tolist(), draws.logprobs_R.tolist()
        for id, token, logprob, top in zip(ids, tokens, logprobs, tops, strict=True):
            if isfinite(logprob):
                result.tokens[id] = (Sampled(token, logprob, top),)
            else:
                result.errors[id] = _NO_TOKEN if id in self.table.grammars else _NOT_FINITE

    def _logits(self, hidden_RD: Tensor) -> Tensor:
        if not self.deterministic:
            return heads.logits(self.model, hidden_RD)
        return heads.logits(self.model, pad_rows(hidden_RD))[: len(hidden_RD)]

    def _chunks(self, num_rows: int) -> Iterator[slice]:
        for start in range(0, num_rows, self._rows_per_chunk):
            yield slice(start, start + self._rows_per_chunk)


def _reason(error: Exception) -> str:
    if isinstance(error, GrammarError):
        return error.message
    return f"sampling failed: {type(error).__name__}: {error}"
