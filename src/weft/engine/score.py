"""Log-probabilities of given tokens through the packed training path. T tokens, D model width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from weft.core.errors import ContextLengthError, RequestError
from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.context import StepContext

# Tokens of one forward pass; a longer sequence makes its own.
MAX_TOKENS = 8192


def score_sequences(
    model: Decoder,
    sequences: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    max_tokens: int = MAX_TOKENS,
) -> list[list[float]]:
    """Return log p(token | tokens before it) for all tokens of each sequence but its first.

    Raises:
        ContextLengthError: a sequence longer than the model's context.
        RequestError: an empty sequence.
    """
    limit = model.spec.context_length
    for index, sequence in enumerate(sequences):
        if not sequence:
            raise RequestError(f"sequence {index} is empty", fix="score at least one token")
        if len(sequence) > limit:
            raise ContextLengthError(
                f"sequence {index} has {len(sequence)} tokens, the context is {limit}",
                fix=f"cut it to {limit} tokens",
            )
    scores: list[list[float]] = []
    with torch.inference_mode():
        for part in _parts(sequences, max_tokens):
            scores.extend(_score(model, part, temperature))
    return scores


def _parts(sequences: Sequence[Sequence[int]], max_tokens: int) -> Iterator[list[Sequence[int]]]:
    part: list[Sequence[int]] = []
    num_tokens = 0
    for sequence in sequences:
        if part and num_tokens + len(sequence) > max_tokens:
            yield part
            part, num_tokens = [], 0
        part.append(sequence)
        num_tokens += len(sequence)
    if part:
        yield part


def _score(model: Decoder, part: Sequence[Sequence[int]], temperature: float) -> list[list[float]]:
    lengths = [len(sequence) for sequence in part]
    tokens_T = torch.tensor([token for sequence in part for token in sequence])
    tokens_T = tokens_T.to(model.device)
    hidden_TD = model(tokens_T, StepContext.packed(lengths, device=model.device))
    # The roll gives the last token of each sequence a target of its neighbour; it is cut below.
    logprobs_T = heads.log_probs(model, hidden_TD, tokens_T.roll(-1), temperature=temperature)
    return [logprobs[:-1].tolist() for logprobs in logprobs_T.split(lengths)]
