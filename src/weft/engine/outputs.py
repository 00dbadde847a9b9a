"""What the engine hands back: ``Delta`` while a request runs, ``Completion`` when it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from weft.spec.request import FinishReason

TopLogprobs = tuple[tuple[int, float], ...]


class PromptLogprob(NamedTuple):
    """How likely the model finds one token of a prompt behind those before it.

    Attributes:
        logprob: Natural logarithm of its probability, at temperature 1.
        rank: 1 for the likeliest token of the vocabulary.
        top: Likeliest tokens (token, log-probability), likeliest first.
    """

    logprob: float
    rank: int
    top: TopLogprobs = ()


# One entry per prompt token; none for the first, which nothing comes before.
PromptLogprobs = tuple[PromptLogprob | None, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request.

    Attributes:
        num_prompt_tokens: Tokens of the prompt.
        num_completion_tokens: Tokens generated so far, an end token included.
        num_cached_tokens: Prompt tokens whose keys and values were found in the prefix cache.
    """

    num_prompt_tokens: int
    num_completion_tokens: int
    num_cached_tokens: int

    @property
    def num_tokens(self) -> int:
        """Prompt and completion together."""
        return self.num_prompt_tokens + self.num_completion_tokens


@dataclass(frozen=True, slots=True)
class Delta:
    """News of one request: at most one token, and the text that has become safe to show.

    Text lags behind tokens: half a UTF-8 character and a possible beginning of a stop text are
    held back. The text of all deltas together is ``Completion.text``.

    Attributes:
        request_id: Whose.
        text: New text; may be empty.
        token: The token drawn, if one was.
        logprob: Its log-probability under the distribution it was drawn from.
        top_logprobs: Likeliest alternatives (token, log-probability), likeliest first.
        weight_version: Version of the weights that drew it.
        finish_reason: Set in the last delta of a request, and only there.
        stop_text: The stop text that ended the request, if one did.
        error: In words, when the finish reason is ERROR.
        usage: Counts so far.
        prompt_logprobs: Of the prompt's tokens, if asked for, with the first token.
    """

    request_id: str
    text: str
    token: int | None
    logprob: float
    top_logprobs: TopLogprobs
    weight_version: int
    finish_reason: FinishReason | None
    stop_text: str | None
    error: str | None
    usage: Usage
    prompt_logprobs: PromptLogprobs | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished request.

    Attributes:
        request_id: Whose.
        index: Which sample of its prompt.
        prompt: The prompt's tokens.
        tokens: Every generated token, a final end token included: what reinforcement learning
            trains on. Tokens of a stop text are included too.
        text: Text of the tokens without special tokens, without the stop text, and without a
            token that was named in ``stop_token_ids``.
        logprobs: Log-probability of each token under the distribution it was drawn from.
        top_logprobs: Alternatives per token; empty unless asked for.
        weight_versions: Version of the weights that drew each token.
        finish_reason: Why it ended.
        stop_text: The stop text that ended it, if one did.
        error: In words, when the finish reason is ERROR.
        num_prompt_tokens: Length of the prompt.
        num_cached_tokens: Prompt tokens found in the prefix cache.
        prompt_logprobs: Of the prompt's tokens, if asked for and computed before it ended.
    """

    request_id: str
    index: int
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]
    top_logprobs: tuple[TopLogprobs, ...]
    weight_versions: tuple[int, ...]
    finish_reason: FinishReason
    stop_text: str | None
    error: str | None
    num_prompt_tokens: int
    num_cached_tokens: int
    prompt_logprobs: PromptLogprobs | None = None
