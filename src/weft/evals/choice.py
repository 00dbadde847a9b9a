"""Multiple choice by log-likelihood: the continuation the model finds likeliest is its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.core.errors import DataError
from weft.evals.interval import Interval, wilson
from weft.evals.loglikelihood import score_requests
from weft.evals.requests import LogLikelihood, split_request
from weft.models.decoder import Decoder
from weft.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ChoiceItem:
    """One question.

    Attributes:
        context: What comes before the answer.
        choices: Continuations, each with its leading space if it has one.
        answer: Index of the right one.

    Raises:
        DataError: fewer than two choices, two equal ones, or no such answer.
    """

    context: str
    choices: tuple[str, ...]
    answer: int

    def __post_init__(self) -> None:
        if len(set(self.choices)) != len(self.choices) or len(self.choices) < 2:
            raise DataError(
                f"an item has the choices {self.choices!r}", fix="give at least two different ones"
            )
        if not 0 <= self.answer < len(self.choices):
            raise DataError(
                f"answer {self.answer} of {len(self.choices)} choices does not exist",
                fix=f"use 0 to {len(self.choices) - 1}",
            )


@dataclass(frozen=True)
class ChoiceResult:
    """Accuracy on a set of items.

    Attributes:
        n: Items.
        num_correct: Items whose likeliest continuation is right.
        num_correct_per_byte: The same with the log-likelihood divided by the continuation's bytes,
            which does not favour short choices.
        interval: 95 % Wilson interval of the first.
        interval_per_byte: Of the second.
        chance: Accuracy of guessing.
        log_probs: Log-likelihood of every choice of every item.
        first_prompt: The first context as tokens.
    """

    n: int
    num_correct: int
    num_correct_per_byte: int
    interval: Interval
    interval_per_byte: Interval
    chance: float
    log_probs: tuple[tuple[float, ...], ...]
    first_prompt: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        """Share answered right by raw log-likelihood."""
        return self.num_correct / self.n

    @property
    def accuracy_per_byte(self) -> float:
        """Share answered right by log-likelihood per byte."""
        return self.num_correct_per_byte / self.n


def choose(model: Decoder, tokenizer: Tokenizer, items: Sequence[ChoiceItem]) -> ChoiceResult:
    """Score every choice of every item; the first wins among equals.

    Raises:
        DataError: there are no items.
    """
    if not items:
        raise DataError("there are no items to choose from", fix="give at least one")
    requests: list[LogLikelihood] = [
        split_request(tokenizer, item.context, choice) for item in items for choice in item.choices
    ]
    scores = iter(score_requests(model, requests))
    log_probs = [np.array([next(scores).log_prob for _ in item.choices]) for item in items]
    answers = [item.answer for item in items]
    plain = [int(values.argmax()) for values in log_probs]
    per_byte = [
        int((values / [len(choice.encode("utf-8")) for choice in item.choices]).argmax())
        for values, item in zip(log_probs, items, strict=True)
    ]
    num_plain = sum(a == b for a, b in zip(plain, answers, strict=True))
    num_per_byte = sum(a == b for a, b in zip(per_byte, answers, strict=True))
    return ChoiceResult(
        n=len(items),
        num_correct=num_plain,
        num_correct_per_byte=num_per_byte,
        interval=wilson(num_plain, len(items)),
        interval_per_byte=wilson(num_per_byte, len(items)),
        chance=float(np.mean([1 / len(item.choices) for item in items])),
        log_probs=tuple(tuple(values.tolist()) for values in log_probs),
        first_prompt=requests[0].context,
    )
