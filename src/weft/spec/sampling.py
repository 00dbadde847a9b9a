"""What a caller may ask of the sampler, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from weft.core.errors import RequestError
from weft.spec.structured import PARAM, StructuredSpec

# Most alternatives of one token (OpenAI's limit).
MAX_LOGPROBS = 20


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn and when to stop.

    Attributes:
        max_tokens: Generate at most this many; none means up to the context length.
        temperature: 0 is greedy.
        top_k: Keep the k most likely tokens; none keeps all.
        top_p: Keep the smallest set of tokens whose probability reaches this.
        min_p: Drop tokens less likely than this times the most likely one.
        typical_p: Of what the others leave, keep the tokens whose surprise is nearest to the mean
            surprise until their probability reaches this (Meister et al. 2023, arXiv:2202.00666).
        seed: Same seed, same request, same tokens, whatever runs beside it. None draws a seed.
        presence_penalty: Subtracted once from tokens already generated (OpenAI).
        frequency_penalty: Subtracted for each time a token was generated (OpenAI).
        repetition_penalty: Divides positive, multiplies negative logits of tokens in the prompt
            or output (Keskar et al. 2019, arXiv:1909.05858).
        logit_bias: (token, value) pairs; the value is added to the token's logit (OpenAI).
        allowed_token_ids: Only these can be drawn; none means all.
        bad_words: Token sequences of which the last token is not drawn after the others.
        stop: Texts that end the generation; not part of the output.
        stop_token_ids: Tokens that end the generation besides the model's own.
        ignore_eos: Continue past the model's end tokens (for benchmarks).
        min_tokens: End tokens cannot be drawn before this many.
        logprobs: Return the log-probability of each token and of this many alternatives.
        prompt_logprobs: Return the log-probability of each prompt token but the first, as the model
            itself gives it (temperature 1, nothing added), and of this many alternatives. The
            prompt is then computed whole, cached or not.
        skip_special_tokens: Leave special tokens out of the text; they are among the tokens always.
        structured: What the text must look like. End tokens can be drawn exactly where it is
            complete, and then also before ``min_tokens`` if nothing else can follow. Stop texts
            may still cut it.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_token_ids: tuple[int, ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    structured: StructuredSpec | None = None

    def __post_init__(self) -> None:
        _within("max_tokens", self.max_tokens, 1, None)
        _within("temperature", self.temperature, 0.0, 100.0)
        _within("top_k", self.top_k, 1, None)
        _within("top_p", self.top_p, 0.0, 1.0)
        _within("min_p", self.min_p, 0.0, 1.0)
        _within("typical_p", self.typical_p, 1e-6, 1.0)
        _within("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _within("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        _within("min_tokens", self.min_tokens, 0, None)
        _within("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        _within("prompt_logprobs", self.prompt_logprobs, 0, MAX_LOGPROBS)
        if self.top_p == 0.0:
            raise RequestError(
                "top_p is 0; it keeps no token",
                fix="use 0 < top_p <= 1 or temperature 0 for greedy",
                param="top_p",
            )
        for token, value in self.logit_bias:
            _within(f"logit_bias of token {token}", value, -100.0, 100.0, param="logit_bias")
        if len({token for token, _ in self.logit_bias}) < len(self.logit_bias):
            raise RequestError("logit_bias names a token twice", param="logit_bias")
        if any(not words for words in self.bad_words):
            raise RequestError(
                "bad_words has an empty sequence", fix="leave it out", param="bad_words"
            )
        if len(self.stop) > 16 or any(not text for text in self.stop):
            raise RequestError(
                f"stop has {len(self.stop)} texts; up to 16 are allowed and none may be empty",
                fix="shorten the list",
                param="stop",
            )
        if self.structured is not None and self.ignore_eos:
            raise RequestError(
                "ignore_eos is set for a structured output, which an end token has to end",
                fix="leave ignore_eos out",
                param=PARAM,
            )
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(
                f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}",
                fix="lower min_tokens",
                param="min_tokens",
            )

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def changes_distribution(self) -> bool:
        """Whether anything but the temperature shapes the distribution tokens are drawn from."""
        penalties = (self.presence_penalty, self.frequency_penalty, self.repetition_penalty - 1.0)
        truncated = self.top_k is not None or self.top_p < 1.0 or self.min_p > 0.0
        lists = (self.logit_bias, self.allowed_token_ids, self.bad_words)
        banned = self.min_tokens > 0 or self.structured is not None
        return truncated or self.typical_p < 1.0 or any(penalties) or any(lists) or banned

    @property
    def named_token_ids(self) -> dict[str, tuple[int, ...]]:
        """Token ids by the parameter that names them, to be checked against a vocabulary."""
        return {
            "stop_token_ids": self.stop_token_ids,
            "logit_bias": tuple(token for token, _ in self.logit_bias),
            "allowed_token_ids": self.allowed_token_ids,
            "bad_words": tuple(token for words in self.bad_words for token in words),
        }


def _within(
    name: str, value: float | None, low: float, high: float | None, *, param: str | None = None
) -> None:
    if value is None:
        return
    if math.isnan(value) or value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"between {low} and {high}"
        raise RequestError(f"{name} is {value}", fix=f"it must be {limits}", param=param or name)
