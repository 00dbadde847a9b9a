"""The sampling chain for one row in plain Python: slow, and easy to check by eye.

The same definitions as ``pipeline.py`` in double precision: top-k keeps whatever reaches the
k-th largest logit; top-p keeps the shortest run of likeliest tokens whose mass reaches p, with
all that tie with the last of them; min-p keeps what is at least min_p times the likeliest;
typical-p keeps, of the rest, those nearest to the mean surprise until their mass reaches p.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from weft.spec.sampling import SamplingParams


def distribution(
    logits: Sequence[float],
    params: SamplingParams,
    *,
    prompt: Sequence[int] = (),
    output: Sequence[int] = (),
    end_tokens: Sequence[int] = (),
) -> list[float]:
    """Return the probabilities of the next token; for greedy those at temperature one."""
    values = _penalised(list(logits), params, prompt, output)
    for token, bias in params.logit_bias:
        values[token] += bias
    for token in _forbidden(len(values), params, [*prompt, *output]):
        values[token] = -math.inf
    if len(output) < params.min_tokens:
        for token in end_tokens:
            values[token] = -math.inf
    if params.greedy:
        return _softmax(values)
    largest = max(values)
    values = [(value - largest) / params.temperature for value in values]
    if params.top_k is not None:
        kth = sorted(values, reverse=True)[min(params.top_k, len(values)) - 1]
        values = [value if value >= kth else -math.inf for value in values]
    if params.top_p < 1.0:
        last = _nucleus_end(values, params.top_p)
        values = [value if value >= last else -math.inf for value in values]
    if params.min_p > 0.0:
        values = [value if value >= math.log(params.min_p) else -math.inf for value in values]
    if params.typical_p < 1.0:
        values = _typical(values, params.typical_p)
    return _softmax(values)


def draw(probabilities: Sequence[float], uniform: float) -> int:
    """Return the first token, in id order, whose cumulative probability passes ``uniform``."""
    cumulative = 0.0
    for token, probability in enumerate(probabilities):
        cumulative += probability
        if cumulative > uniform:
            return token
    return max(token for token, probability in enumerate(probabilities) if probability > 0.0)


def _penalised(
    values: list[float], params: SamplingParams, prompt: Sequence[int], output: Sequence[int]
) -> list[float]:
    for token in {*prompt, *output}:
        repetition = params.repetition_penalty
        values[token] = (
            values[token] / repetition if values[token] > 0 else (values[token] * repetition)
        )
    for token, count in Counter(output).items():
        values[token] -= params.frequency_penalty * count + params.presence_penalty
    return values


def _forbidden(vocab_size: int, params: SamplingParams, history: Sequence[int]) -> set[int]:
    """Return what the lists of allowed tokens and bad words exclude now."""
    allowed = set(params.allowed_token_ids) or set(range(vocab_size))
    forbidden = set(range(vocab_size)) - allowed
    for *before, last in params.bad_words:
        if list(history[len(history) - len(before) :]) == before:
            forbidden.add(last)
    return forbidden


def _typical(values: Sequence[float], typical_p: float) -> list[float]:
    """Keep what is nearest to the mean surprise until the mass reaches ``typical_p``."""
    probabilities = _softmax(values)
    surprise = [-math.log(p) if p > 0 else math.inf for p in probabilities]
    pairs = zip(probabilities, surprise, strict=True)
    entropy = sum(p * s for p, s in pairs if p > 0)
    distance = [abs(s - entropy) for s in surprise]
    mass, limit = 0.0, math.inf
    for token in sorted(range(len(values)), key=lambda token: distance[token]):
        mass += probabilities[token]
        if mass >= typical_p:
            limit = distance[token]
            break
    return [v if d <= limit else -math.inf for v, d in zip(values, distance, strict=True)]


def _nucleus_end(values: Sequence[float], top_p: float) -> float:
    """Return the value of the token at which the mass of the likeliest reaches ``top_p``."""
    ordered = sorted(values, reverse=True)
    mass, total = 0.0, sum(math.exp(value) for value in ordered)
    for value in ordered:
        mass += math.exp(value)
        if mass >= top_p * total:
            return value
    return ordered[-1]


def _softmax(values: Sequence[float]) -> list[float]:
    largest = max(values)
    weights = [math.exp(value - largest) for value in values]
    total = sum(weights)
    return [weight / total for weight in weights]
