"""Log-probabilities of prompts, taken from the very steps that compute them.

The hidden states of a prompt pass by once, in chunks as large as a step. Those of requests that ask
go through the output head there, a few rows at a time, so logits of a whole prompt never exist.
What was found is kept by position: a sequence that is preempted in its prompt overwrites it.

Shapes: T tokens of a step, D model width, R rows that are scored, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite

import torch
from torch import Tensor

from weft.engine.outputs import PromptLogprob, PromptLogprobs
from weft.sched.plan import NewSequence, StepItem

# Float32 logits held at once; as much again is needed to normalise them.
LOGITS_BYTES = 64 * 2**20

_NOT_FINITE = "the log-probabilities of the prompt are not finite: NaN or infinite logits"

Logits = Callable[[Tensor], Tensor]


@dataclass
class _Prompt:
    request_id: str
    tokens: tuple[int, ...]
    num_top: int
    found: list[PromptLogprob | None] = field(init=False)

    def __post_init__(self) -> None:
        self.found = [None] * len(self.tokens)


@dataclass(frozen=True)
class _Row:
    """One row of a step: the hidden state that predicts the token at ``position``."""

    index: int
    id: int
    position: int


class PromptScorer:
    """The prompts of all live sequences that want to be scored."""

    def __init__(self, vocab_size: int) -> None:
        self._rows_per_chunk = max(1, LOGITS_BYTES // (4 * vocab_size))
        self._prompts: dict[int, _Prompt] = {}
        self._ids: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._prompts)

    def __contains__(self, id: int) -> bool:
        return id in self._prompts

    def add(self, new: NewSequence) -> None:
        """Take in a sequence, if it asks."""
        num_top = new.sampling.prompt_logprobs
        if num_top is not None:
            self._prompts[new.id] = _Prompt(new.request_id, new.prompt, num_top)
            self._ids[new.request_id] = new.id

    def remove(self, id: int) -> None:
        """Forget a sequence; forgetting one that is not here is no error."""
        prompt = self._prompts.pop(id, None)
        if prompt is not None and self._ids.get(prompt.request_id) == id:
            del self._ids[prompt.request_id]

    def take(self, request_id: str) -> PromptLogprobs | None:
        """Return what was found for a request whose prompt is computed, once; none if unasked."""
        id = self._ids.get(request_id)
        if id is None:
            return None
        found = self._prompts[id].found
        assert None not in found[1:], f"the prompt of {request_id!r} was not computed whole"
        self.remove(id)
        return tuple(found)

    def score(self, items: Sequence[StepItem], hidden_TD: Tensor, logits: Logits) -> dict[int, str]:
        """Score the prompt tokens that follow the tokens of a step.

        Args:
            items: What the step computed, in the order of its hidden states.
            hidden_TD: The hidden states; what follows those of the items is not looked at.
            logits: The output head, [R, D] -> [R, V] float32.

        Returns:
            What is wrong, by sequence.
        """
        rows = self._rows(items) if self._prompts else []
        errors: dict[int, str] = {}
        for start in range(0, len(rows), self._rows_per_chunk):
            part = rows[start : start + self._rows_per_chunk]
            index_R = torch.tensor([row.index for row in part], device=hidden_TD.device)
            self._take_in(part, logits(hidden_TD.index_select(0, index_R)), errors)
        return errors

    def _rows(self, items: Sequence[StepItem]) -> list[_Row]:
        rows: list[_Row] = []
        offset = 0
        for item in items:
            prompt = self._prompts.get(item.id)
            if prompt is not None:
                num_rows = min(len(item.tokens), len(prompt.tokens) - 1 - item.start)
                rows.extend(
                    _Row(offset + row, item.id, item.start + row + 1) for row in range(num_rows)
                )
            offset += item.num_tokens
        return rows

    def _take_in(self, rows: Sequence[_Row], logits_RV: Tensor, errors: dict[int, str]) -> None:
        prompts = [self._prompts[row.id] for row in rows]
        targets = [p.tokens[row.position] for p, row in zip(prompts, rows, strict=True)]
        num_top = max(prompt.num_top for prompt in prompts)
        scored = score_rows(logits_RV, torch.tensor(targets, device=logits_RV.device), num_top)
        for row, prompt, found in zip(rows, prompts, scored, strict=True):
            prompt.found[row.position] = found._replace(top=found.top[: prompt.num_top])
            if not isfinite(found.logprob):
                errors[row.id] = _NOT_FINITE


def score_rows(logits_RV: Tensor, targets_R: Tensor, num_top: int) -> list[PromptLogprob]:
    """Return the log-probability and rank of one target per row, and the likeliest tokens.

    >>> score_rows(torch.tensor([[0.0, 0.0]]), torch.tensor([1]), 0)[0].rank
    1
    """
    normaliser_R1 = logits_RV.logsumexp(-1, keepdim=True)
    chosen_R1 = logits_RV.gather(-1, targets_R[:, None])
    ranks_R = (logits_RV > chosen_R1).sum(-1) + 1
    top = logits_RV.topk(min(num_top, logits_RV.shape[-1]), dim=-1)
    columns = zip(
        (chosen_R1 - normaliser_R1).squeeze(-1).tolist(),
        ranks_R.tolist(),
        top.indices.tolist(),
        (top.values - normaliser_R1).tolist(),
        strict=True,
    )
    return [
        PromptLogprob(logprob, rank, tuple(zip(tokens, values, strict=True)))
        for logprob, rank, tokens, values in columns
    ]
