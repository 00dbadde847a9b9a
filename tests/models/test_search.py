"""Searches over a scorer that is a table, against every sequence there is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from weft.core.errors import ConfigError
from weft.models.search import BeamConfig, beam_search, greedy_search

VOCAB_SIZE, END = 4, 3


class Table:
    """Random logits for every (prompt, hypothesis); counts what it is asked."""

    def __init__(self, seed: int, num_prompts: int, *, sharpness: float = 2.0) -> None:
        self._seed, self._num_prompts, self._sharpness = seed, num_prompts, sharpness
        self._rows: list[tuple[int, tuple[int, ...]]] = []
        self.num_rows = 0

    def logits(self, prompt: int, tokens: tuple[int, ...]) -> Tensor:
        number = hash((self._seed, prompt, *tokens)) % 2**31
        generator = torch.Generator().manual_seed(number)
        return self._sharpness * torch.randn(VOCAB_SIZE, generator=generator)

    def start(self) -> Tensor:
        self._rows = [(prompt, ()) for prompt in range(self._num_prompts)]
        return self._answer()

    def advance(self, parents_R: Tensor, tokens_R: Tensor) -> Tensor:
        pairs = zip(parents_R.tolist(), tokens_R.tolist(), strict=True)
        self._rows = [(self._rows[p][0], (*self._rows[p][1], token)) for p, token in pairs]
        prompts = [prompt for prompt, _ in self._rows]
        assert prompts == sorted(prompts), "rows of a prompt stay side by side"
        return self._answer()

    def _answer(self) -> Tensor:
        self.num_rows += len(self._rows)
        return torch.stack([self.logits(*row) for row in self._rows])

    def log_prob(self, prompt: int, tokens: Sequence[int]) -> float:
        total = 0.0
        for at, token in enumerate(tokens):
            total += float(self.logits(prompt, tuple(tokens[:at])).log_softmax(-1)[token])
        return total


def best_of_all(table: Table, prompt: int, limit: int, config: BeamConfig):
    """Return every complete sequence, best first: ended by itself or as long as allowed."""
    found = []
    for length in range(limit + 1):
        for tokens in itertools.product(range(END), repeat=length):
            full = tokens if length == limit else (*tokens, END)
            log_prob = table.log_prob(prompt, full)
            found.append((config.score(log_prob, len(full)), tokens))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_beam_as_wide_as_the_space_finds_the_best_of_all_sequences(seed: int, penalty: float):
    limits = [4, 1, 2, 3]
    table = Table(seed, len(limits))
    config = BeamConfig(200, penalty, num_results=3)
    results = beam_search(table, limits, {END}, config)
    for prompt, (limit, hypotheses) in enumerate(zip(limits, results, strict=True)):
        expected = best_of_all(table, prompt, limit, config)[:3]
        assert [h.tokens for h in hypotheses] == [tokens for _, tokens in expected]
        for hypothesis, (score, _) in zip(hypotheses, expected, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(10))
def test_one_beam_is_greedy_search(seed: int, penalty: float):
    limits = [7, 3, 5]
    greedy = greedy_search(Table(seed, 3), limits, {END})
    beams = beam_search(Table(seed, 3), limits, {END}, BeamConfig(1, penalty))
    for hypothesis, [beam] in zip(greedy, beams, strict=True):
        assert hypothesis.tokens == beam.tokens
        assert hypothesis.finished == beam.finished
        assert hypothesis.log_prob == pytest.approx(beam.log_prob, abs=1e-5)


def test_greedy_search_takes_the_likeliest_token_until_the_end_or_the_limit():
    table, limits = Table(1, 4), [6, 6, 1, 6]
    for prompt, hypothesis in enumerate(greedy_search(table, limits, {END})):
        tokens: tuple[int, ...] = ()
        while len(tokens) < limits[prompt]:
            token = int(table.logits(prompt, tokens).argmax())
            if token == END:
                break
            tokens = (*tokens, token)
        assert hypothesis.tokens == tokens
        assert hypothesis.finished == (len(tokens) < limits[prompt])


@pytest.mark.parametrize("num_beams", [2, 4])
def test_log_probabilities_are_those_of_the_sequences(num_beams: int):
    table = Table(5, 3)
    for prompt, hypotheses in enumerate(
        beam_search(table, [5] * 3, {END}, BeamConfig(num_beams, num_results=num_beams))
    ):
        assert len({h.tokens for h in hypotheses}) == len(hypotheses)
        for h in hypotheses:
            full = (*h.tokens, END) if h.finished else h.tokens
            assert h.log_prob == pytest.approx(table.log_prob(prompt, full), abs=1e-5)


def test_a_settled_prompt_is_not_computed_further():
    """Without penalty a finished best hypothesis cannot be overtaken: sums only fall."""

    class Certain(Table):
        def logits(self, prompt: int, tokens: tuple[int, ...]) -> Tensor:
            return torch.tensor([0.0, 0.0, 0.0, 9.0])

    table = Certain(0, 1)
    [[best]] = beam_search(table, [1000], {END}, BeamConfig(4, length_penalty=0.0))
    assert best.tokens == ()
    assert table.num_rows == 1


def test_more_penalty_prefers_longer_hypotheses():
    lengths = []
    for penalty in (0.0, 1.0, 4.0):
        found = beam_search(Table(2, 20), [8] * 20, {END}, BeamConfig(8, penalty))
        lengths.append(sum(len(best.tokens) for [best] in found))
    assert lengths[0] < lengths[1] < lengths[2]


def test_a_limit_below_one_token_is_refused():
    with pytest.raises(ConfigError, match="max_tokens is 0"):
        greedy_search(Table(0, 2), [3, 0], {END})
    with pytest.raises(ConfigError, match="max_tokens is 0"):
        beam_search(Table(0, 2), [3, 0], {END}, BeamConfig(2))


@pytest.mark.parametrize(
    "wrong", [{"num_beams": 0}, {"num_beams": 2, "num_results": 3}, {"length_penalty": -0.1}]
)
def test_impossible_beams_are_refused(wrong):
    with pytest.raises(ConfigError):
        BeamConfig(**wrong)
