"""Greedy and beam search over anything that scores next tokens.

B prompts, R rows (hypotheses of all prompts, those of one prompt side by side), K beams,
V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from weft.core.errors import ConfigError


class NextTokens(Protocol):
    """What a search asks of a model: the scores after each hypothesis."""

    def start(self) -> Tensor:
        """Return the logits after each prompt, [B, V]."""
        ...

    def advance(self, parents_R: Tensor, tokens_R: Tensor) -> Tensor:
        """Return the logits after rows of the previous call with one more token, [R, V].

        Rows may be repeated and left out; those of one prompt stay side by side, prompts in order.
        """
        ...


@dataclass(frozen=True)
class Hypothesis:
    """One continuation of a prompt.

    Attributes:
        tokens: Without the end token.
        log_prob: Sum over its tokens, the end token included, in nats.
        score: What hypotheses are ranked by: ``log_prob`` over the length penalty.
        finished: Whether it ended by itself, not by the limit.
    """

    tokens: tuple[int, ...]
    log_prob: float
    score: float
    finished: bool


@dataclass(frozen=True)
class BeamConfig:
    """How beams are searched.

    Attributes:
        num_beams: Hypotheses kept per prompt (K); 1 is greedy search.
        length_penalty: Exponent of ((5 + length) / 6), by which the log-probability is divided
            (Wu et al. 2016, arXiv:1609.08144, eq. 14); 0 compares log-probabilities, more prefers
            longer hypotheses.
        num_results: How many hypotheses to return per prompt, best first.
    """

    num_beams: int = 4
    length_penalty: float = 0.6
    num_results: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.num_results <= self.num_beams:
            raise ConfigError(
                f"num_results is {self.num_results} of {self.num_beams} beams",
                fix="choose num_results between 1 and num_beams",
            )
        if self.length_penalty < 0:
            raise ConfigError(f"length_penalty is {self.length_penalty}; it must be at least 0")

    def score(self, log_prob: float, length: int) -> float:
        """Return what a hypothesis of this length is ranked by."""
        return log_prob / ((5 + length) / 6) ** self.length_penalty


@torch.inference_mode()
def greedy_search(
    model: NextTokens, max_tokens: Sequence[int], eos_ids: Collection[int]
) -> list[Hypothesis]:
    """Take the likeliest token at each step, for every prompt until its end token or its limit.

    Raises:
        ConfigError: a limit is below 1.
    """
    _check_limits(max_tokens)
    log_probs = [0.0] * len(max_tokens)
    tokens: list[list[int]] = [[] for _ in max_tokens]
    finished = [False] * len(max_tokens)
    rows, logits_RV = list(range(len(max_tokens))), model.start()
    while rows:
        best = logits_RV.float().log_softmax(-1).max(-1)
        kept: list[int] = []
        for row, prompt in enumerate(rows):
            token = int(best.indices[row])
            log_probs[prompt] += float(best.values[row])
            finished[prompt] = token in eos_ids
            if not finished[prompt]:
                tokens[prompt].append(token)
                if len(tokens[prompt]) < max_tokens[prompt]:
                    kept.append(row)
        rows = [rows[row] for row in kept]
        if rows:
            parents_R = torch.tensor(kept)
            logits_RV = model.advance(parents_R, best.indices[parents_R.to(best.indices.device)])
    results = zip(tokens, log_probs, finished, strict=True)
    return [Hypothesis(tuple(ids), total, total, ended) for ids, total, ended in results]


@torch.inference_mode()
def beam_search(
    model: NextTokens,
    max_tokens: Sequence[int],
    eos_ids: Collection[int],
    config: BeamConfig,
) -> list[list[Hypothesis]]:
    """Keep the K likeliest hypotheses of each prompt at each step; returns the best, best first.

    A hypothesis that ends keeps its place among the K, so one beam is greedy search and a beam as
    wide as the space of sequences is exhaustive search. A prompt is done when all places are
    taken, or when nothing that still grows can outrank what it has found.

    Raises:
        ConfigError: a limit is below 1.
    """
    _check_limits(max_tokens)
    beams = [_Beam(limit, config) for limit in max_tokens]
    logits_RV = model.start()
    sums_R = torch.zeros(len(beams))
    while True:
        top = logits_RV.float().log_softmax(-1).topk(min(config.num_beams, logits_RV.shape[-1]))
        totals_RK = (top.values.cpu() + sums_R.unsqueeze(1)).tolist()
        tokens_RK = top.indices.tolist()
        parents: list[int] = []
        first = 0
        for beam in beams:
            last = first + len(beam.growing)
            kept = beam.extend(totals_RK[first:last], tokens_RK[first:last], eos_ids)
            parents += [first + row for row in kept]
            first = last
        if not parents:
            return [beam.results() for beam in beams]
        growing = [hypothesis for beam in beams for hypothesis in beam.growing]
        sums_R = torch.tensor([hypothesis.log_prob for hypothesis in growing])
        last_tokens = torch.tensor([hypothesis.tokens[-1] for hypothesis in growing])
        logits_RV = model.advance(torch.tensor(parents), last_tokens)


def _check_limits(max_tokens: Sequence[int]) -> None:
    if min(max_tokens, default=1) < 1:
        raise ConfigError(
            f"max_tokens is {min(max_tokens)} for a prompt; at least one token must be allowed"
        )


@dataclass(frozen=True)
class _Growing:
    """A hypothesis that has not ended."""

    tokens: tuple[int, ...] = ()
    log_prob: float = 0.0


class _Beam:
    """The hypotheses of one prompt."""

    def __init__(self, max_tokens: int, config: BeamConfig) -> None:
        self.growing = [_Growing()]
        self._found: list[Hypothesis] = []
        self._max_tokens, self._config = max_tokens, config

    def extend(
        self,
        totals_RK: Sequence[Sequence[float]],
        tokens_RK: Sequence[Sequence[int]],
        eos_ids: Collection[int],
    ) -> list[int]:
        """Replace the growing hypotheses by their best continuations; return whose they are."""
        candidates = [
            (total, row, token)
            for row, (totals, tokens) in enumerate(zip(totals_RK, tokens_RK, strict=True))
            for total, token in zip(totals, tokens, strict=True)
            if total > -math.inf
        ]
        candidates.sort(key=lambda candidate: -candidate[0])
        grown: list[_Growing] = []
        parents: list[int] = []
        for total, row, token in candidates[: self._config.num_beams - len(self._found)]:
            tokens = self.growing[row].tokens
            if token in eos_ids:
                self._add(tokens, total, len(tokens) + 1, finished=True)
            elif len(tokens) + 1 == self._max_tokens:
                self._add((*tokens, token), total, len(tokens) + 1, finished=False)
            else:
                grown.append(_Growing((*tokens, token), total))
                parents.append(row)
        self.growing = grown
        if grown and self._is_settled():
            self.growing, parents = [], []
        return parents

    def results(self) -> list[Hypothesis]:
        """Return the best hypotheses, best first."""
        return self._ranked()[: self._config.num_results]

    def _add(
        self, tokens: tuple[int, ...], log_prob: float, length: int, *, finished: bool
    ) -> None:
        score = self._config.score(log_prob, length)
        self._found.append(Hypothesis(tokens, log_prob, score, finished))

    def _ranked(self) -> list[Hypothesis]:
        return sorted(self._found, key=lambda hypothesis: -hypothesis.score)

    def _is_settled(self) -> bool:
        """Whether no growing hypothesis can get among the results.

        Log-probabilities only fall, and no penalty is larger than that of the longest.
        """
        results = self.results()
        if len(results) < self._config.num_results:
            return False
        best = max(hypothesis.log_prob for hypothesis in self.growing)
        return self._config.score(best, self._max_tokens) <= results[-1].score
