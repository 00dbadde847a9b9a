"""BLEU and chrF against figures of sacrebleu 2.6 and, in the parity tier, against itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import DataError
from weft.evals.metrics.bleu import bleu, bleu_counts, bleu_of_counts
from weft.evals.metrics.chrf import chrf, chrf_counts, chrf_of_counts
from weft.evals.metrics.tokenize import tokenize_13a

HYPOTHESES = [
    "Two young white men are outside near many bushes.",
    "A little girl climbs into a wooden playhouse - it's 3.5 m high!",
    "Mann in blau",
    "",
]
REFERENCES = [
    "Two young, White males are outside near many bushes.",
    "A little girl climbing into a wooden playhouse, which is 3,5 m high.",
    "A man in a blue shirt is standing on a ladder cleaning a window.",
    "Nothing.",
]
OTHERS = [
    "Two young men stand outside by bushes.",
    "A little girl climbs into a playhouse of wood.",
    "A man cleans a window.",
    "Nothing at all.",
]
SINGLE_BLEU, SINGLE_CHRF = 21.916770058294855, 49.21737140914419
SINGLE_PRECISIONS = (66.66666666666667, 50.0, 33.333333333333336, 22.22222222222222)
DOUBLE_BLEU, DOUBLE_CHRF = 41.03953683247893, 61.0890714414045


def test_scores_of_a_fixture_are_those_of_sacrebleu():
    result = bleu(HYPOTHESES, REFERENCES)
    assert result.score == pytest.approx(SINGLE_BLEU, abs=1e-9)
    assert result.precisions == pytest.approx(SINGLE_PRECISIONS, abs=1e-9)
    assert chrf(HYPOTHESES, REFERENCES) == pytest.approx(SINGLE_CHRF, abs=1e-9)


def test_scores_against_several_references_are_those_of_sacrebleu():
    both = [list(pair) for pair in zip(REFERENCES, OTHERS, strict=True)]
    assert bleu(HYPOTHESES, both).score == pytest.approx(DOUBLE_BLEU, abs=1e-9)
    assert chrf(HYPOTHESES, both) == pytest.approx(DOUBLE_CHRF, abs=1e-9)


def test_equal_texts_score_100_and_unrelated_ones_nothing():
    assert bleu(REFERENCES, REFERENCES).score == pytest.approx(100.0)
    assert chrf(REFERENCES, REFERENCES) == pytest.approx(100.0)
    assert bleu(["xyz"], ["Nothing here is alike at all."]).score == 0.0
    assert chrf(["zzz"], ["abc"]) == 0.0


def test_short_translations_pay_and_long_ones_do_not():
    reference = ["one two three four five six seven eight"]
    short, long = bleu(["one two three four five"], reference), bleu([reference[0] * 2], reference)
    assert short.brevity_penalty < 1.0
    assert long.brevity_penalty == 1.0


def test_letter_case_counts_unless_told_otherwise():
    texts = ["THE CAT SAT ON THE MAT"]
    assert bleu(texts, ["the cat sat on the mat"]).score < 100
    assert bleu(texts, ["the cat sat on the mat"], lowercase=True).score == pytest.approx(100)


def test_a_corpus_can_be_scored_in_parts():
    parts = [slice(0, 1), slice(1, 4)]
    words = sum(bleu_counts(HYPOTHESES[part], REFERENCES[part]).sum(0) for part in parts)
    letters = sum(chrf_counts(HYPOTHESES[part], REFERENCES[part]).sum(0) for part in parts)
    assert bleu_of_counts(words) == bleu(HYPOTHESES, REFERENCES)
    assert chrf_of_counts(letters) == chrf(HYPOTHESES, REFERENCES)


@pytest.mark.parametrize("score", [bleu, chrf])
def test_lists_of_different_lengths_are_refused(score):
    with pytest.raises(DataError, match="1 hypotheses and 2 references"):
        score(["a"], ["a", "b"])
    with pytest.raises(DataError):
        score([], [])


WORDS = st.sampled_from(["a", "b", "the", "cat,", "3.5", "x-y", "mat.", "&quot;", "l'été", "7-"])
SENTENCES = st.lists(WORDS, max_size=9).map(" ".join)


@pytest.mark.parity
class TestAgainstSacrebleu:
    @given(st.text(max_size=40))
    def test_tokens(self, text: str):
        pytest.importorskip("sacrebleu")
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

        assert tokenize_13a(text) == Tokenizer13a()(text.rstrip()).split()

    @given(st.lists(st.tuples(SENTENCES, SENTENCES, SENTENCES), min_size=1, max_size=6))
    def test_scores(self, rows: list[tuple[str, str, str]]):
        sacrebleu = pytest.importorskip("sacrebleu")
        texts, first, second = map(list, zip(*rows, strict=True))
        both = [list(pair) for pair in zip(first, second, strict=True)]
        for theirs, ours in (([first], first), ([first, second], both)):
            expected = sacrebleu.corpus_bleu(texts, theirs)
            assert bleu(texts, ours).score == pytest.approx(expected.score, abs=1e-9)
            expected = sacrebleu.corpus_chrf(texts, theirs)
            assert chrf(texts, ours) == pytest.approx(expected.score, abs=1e-9)
