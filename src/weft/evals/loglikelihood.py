"""Answers to log-likelihood requests through the training path. T tokens, M scored tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from weft.core.errors import ContextLengthError
from weft.evals.requests import LogLikelihood
from weft.models.decoder import Decoder
from weft.models.heads import log_probs, logits
from weft.nn.context import StepContext

# Tokens of one forward pass; a longer request makes its own.
MAX_TOKENS = 8192


class Score(NamedTuple):
    """The answer to one request.

    Attributes:
        log_prob: Summed log-probability of the continuation, nats.
        is_greedy: Whether greedy decoding would have produced it.
    """

    log_prob: float
    is_greedy: bool


def score_requests(
    model: Decoder,
    requests: Sequence[LogLikelihood],
    *,
    max_tokens: int = MAX_TOKENS,
    greedy: bool = False,
) -> list[Score]:
    """Score every continuation given its context; requests never see each other.

    Args:
        model: Used as it is.
        requests: What to score.
        max_tokens: Tokens of one forward pass.
        greedy: Also find out whether each continuation is the greedy one, which needs all logits.

    Raises:
        ContextLengthError: a request longer than the model's context.
    """
    limit = model.spec.context_length
    for index, request in enumerate(requests):
        # The last token is only predicted, so it takes no place.
        if len(request.tokens) - 1 > limit:
            raise ContextLengthError(
                f"request {index} has {len(request.tokens)} tokens, the context is {limit}",
                fix="use fewer examples in the prompt or a model with a longer context",
            )
    # Requests of equal length side by side: attention computes such a run at once.
    order = sorted(range(len(requests)), key=lambda index: len(requests[index].tokens))
    scores: dict[int, Score] = {}
    with torch.inference_mode():
        for part in _parts(order, requests, max_tokens):
            chosen = [requests[index] for index in part]
            scores |= zip(part, _score(model, chosen, greedy), strict=True)
    return [scores[index] for index in range(len(requests))]


def _parts(
    order: Sequence[int], requests: Sequence[LogLikelihood], max_tokens: int
) -> Iterator[list[int]]:
    part: list[int] = []
    num_tokens = 0
    for index in order:
        length = len(requests[index].tokens) - 1
        if part and num_tokens + length > max_tokens:
            yield part
            part, num_tokens = [], 0
        part.append(index)
        num_tokens += length
    if part:
        yield part


def _score(model: Decoder, requests: Sequence[LogLikelihood], greedy: bool) -> list[Score]:
    inputs = np.concatenate([np.asarray(r.tokens[:-1], dtype=np.int64) for r in requests])
    targets = np.concatenate([np.asarray(r.continuation, dtype=np.int64) for r in requests])
    lengths = [len(r.tokens) - 1 for r in requests]
    ends = np.cumsum(lengths)
    rows_M = np.concatenate(
        [np.arange(end - len(r.continuation), end) for r, end in zip(requests, ends, strict=True)]
    )
    device = model.device
    ctx = StepContext.packed(lengths, device=device)
    hidden_TD = model(torch.from_numpy(inputs).to(device), ctx)
    hidden_MD = hidden_TD[torch.from_numpy(rows_M).to(device)]
    targets_M = torch.from_numpy(targets).to(device)
    log_probs_M = log_probs(model, hidden_MD, targets_M).double().cpu()
    if greedy:
        hits_M = (logits(model, hidden_MD).argmax(-1) == targets_M).cpu()
    else:
        hits_M = torch.zeros(len(targets), dtype=torch.bool)
    counts = [len(r.continuation) for r in requests]
    return [
        Score(float(values.sum()), bool(hits.all()))
        for values, hits in zip(log_probs_M.split(counts), hits_M.split(counts), strict=True)
    ]
