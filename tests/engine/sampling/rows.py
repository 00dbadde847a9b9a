"""Builds a SamplingBatch from plain per-row parameters, as tests like to write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from weft.engine.sampling.batch import Penalties, SamplingBatch
from weft.spec.sampling import SamplingParams


def make_batch(
    params: Sequence[SamplingParams],
    uniforms: Sequence[float] | None = None,
    *,
    prompts: Sequence[Sequence[int]] | None = None,
    outputs: Sequence[Sequence[int]] | None = None,
    end_tokens: Sequence[int] = (),
) -> SamplingBatch:
    num_rows = len(params)
    prompts = prompts or [()] * num_rows
    outputs = outputs or [()] * num_rows
    histories = [[*prompt, *output] for prompt, output in zip(prompts, outputs, strict=True)]
    allowed = [(row, t) for row, p in enumerate(params) for t in sorted({*p.allowed_token_ids})]
    biases = [(row, *pair) for row, p in enumerate(params) for pair in p.logit_bias]
    banned = [
        (row, token)
        for row, row_params in enumerate(params)
        if len(outputs[row]) < row_params.min_tokens
        for token in end_tokens
    ]
    banned += [
        (row, words[-1])
        for row, row_params in enumerate(params)
        for words in row_params.bad_words
        if tuple(histories[row][len(histories[row]) - len(words) + 1 :]) == words[:-1]
    ]
    entries = [
        (row, token, Counter(outputs[row])[token])
        for row in range(num_rows)
        for token in sorted({*prompts[row], *outputs[row]})
    ]
    rows, tokens, counts = np.array(entries, dtype=np.int64).reshape(-1, 3).T
    return SamplingBatch(
        temperature_R=np.array([p.temperature for p in params]),
        top_k_R=np.array([p.top_k or 0 for p in params]),
        top_p_R=np.array([p.top_p for p in params]),
        min_p_R=np.array([p.min_p for p in params]),
        typical_p_R=np.array([p.typical_p for p in params]),
        uniform_R=np.array(uniforms if uniforms is not None else [0.5] * num_rows),
        num_top_R=np.array([p.logprobs or 0 for p in params]),
        penalties=Penalties(
            rows,
            tokens,
            counts,
            np.array([p.repetition_penalty for p in params], dtype=np.float32),
            np.array([p.frequency_penalty for p in params], dtype=np.float32),
            np.array([p.presence_penalty for p in params], dtype=np.float32),
        ),
        banned=tuple(np.array(banned, dtype=np.int64).reshape(-1, 2).T) if banned else None,
        allowed=tuple(np.array(allowed, dtype=np.int64).T) if allowed else None,
        biases=(
            np.array([row for row, _, _ in biases], dtype=np.int64),
            np.array([token for _, token, _ in biases], dtype=np.int64),
            np.array([value for _, _, value in biases], dtype=np.float32),
        )
        if biases
        else None,
    )
