"""Log-probabilities in OpenAI's two forms: parallel lists (completions) and objects (chat)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from weft.serve.backend import Delta, PromptLogprobs, Tokenizer


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """Return a token as text; incomplete UTF-8 shows as U+FFFD, special tokens by name."""
    data = tokenizer.token_bytes(token)
    if data:
        return data.decode("utf-8", errors="replace")
    return tokenizer.decode([token], skip_special=False)


def completion_logprobs(
    tokenizer: Tokenizer, deltas: Sequence[Delta], *, offset: int = 0
) -> dict[str, Any]:
    """Return the ``logprobs`` of a completion choice.

    ``offset`` is where the first token begins in the choice's text.
    """
    tokens, values, tops, offsets = [], [], [], []
    for delta in deltas:
        if delta.token is None:
            continue
        text = token_text(tokenizer, delta.token)
        top = {token_text(tokenizer, token): logprob for token, logprob in delta.top_logprobs}
        # The drawn token is always listed, as vLLM does, even when it is not among the likeliest.
        top.setdefault(text, delta.logprob)
        tokens.append(text)
        values.append(delta.logprob)
        tops.append(top)
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": tops,
        "text_offset": offsets,
    }


def echo_logprobs(
    tokenizer: Tokenizer, prompt: Sequence[int], found: PromptLogprobs, num_top: int
) -> dict[str, Any]:
    """Return the part of ``logprobs`` that an echoed prompt adds in front of a completion's."""
    tokens = [token_text(tokenizer, token) for token in prompt]
    tops: list[dict[str, float] | None] = []
    for text, entry in zip(tokens, found, strict=True):
        if entry is None:
            tops.append(None)
            continue
        top = {token_text(tokenizer, token): logprob for token, logprob in entry.top[:num_top]}
        top.setdefault(text, entry.logprob)
        tops.append(top)
    return {
        "tokens": tokens,
        "token_logprobs": [None if entry is None else entry.logprob for entry in found],
        "top_logprobs": tops,
        "text_offset": list(accumulate(map(len, tokens[:-1]), initial=0)),
    }


def prompt_logprobs(
    tokenizer: Tokenizer, prompt: Sequence[int], found: PromptLogprobs
) -> list[dict[str, Any] | None]:
    """Return vLLM's ``prompt_logprobs``: per token an object by token id, the token's own first."""
    answer: list[dict[str, Any] | None] = []
    for token, entry in zip(prompt, found, strict=True):
        if entry is None:
            answer.append(None)
            continue
        ranked = {top: (logprob, rank) for rank, (top, logprob) in enumerate(entry.top, start=1)}
        answer.append(
            {
                str(id): {
                    "logprob": logprob,
                    "rank": rank,
                    "decoded_token": token_text(tokenizer, id),
                }
                for id, (logprob, rank) in ({token: (entry.logprob, entry.rank)} | ranked).items()
            }
        )
    return answer


def chat_logprobs(tokenizer: Tokenizer, deltas: Sequence[Delta]) -> dict[str, Any]:
    """Return the ``logprobs`` of a chat choice."""
    content = [
        {
            **_entry(tokenizer, delta.token, delta.logprob),
            "top_logprobs": [
                _entry(tokenizer, token, logprob) for token, logprob in delta.top_logprobs
            ],
        }
        for delta in deltas
        if delta.token is not None
    ]
    return {"content": content, "refusal": None}


def _entry(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    data = tokenizer.token_bytes(token)
    text = token_text(tokenizer, token)
    return {"token": text, "logprob": logprob, "bytes": list(data or text.encode())}
