from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import DataError
from weft.text.baselines import (
    IGNORE,
    ByteTokenizer,
    ClosedVocabulary,
    split_by_character,
    split_by_space,
    split_by_word,
)

SENTENCE = "Let's do some NLP tasks."


def test_worked_splits():
    """Row K01."""
    assert split_by_space(SENTENCE) == ["Let's", "do", "some", "NLP", "tasks."]
    assert split_by_word(SENTENCE) == ["Let", "'", "s", "do", "some", "NLP", "tasks", "."]
    assert split_by_character(SENTENCE) == list(SENTENCE)
    assert len(split_by_character(SENTENCE)) == 24


def test_closed_vocabulary_maps_what_it_does_not_have_to_unknown():
    vocabulary = ClosedVocabulary.build([["a", "b", "a", "c"]], max_size=3)
    assert vocabulary.tokens == ("<unk>", "a", "b")
    assert vocabulary.encode(["b", "zebra", "a"]) == [2, 0, 1]
    assert vocabulary.unknown_fraction(["b", "zebra", "c", "a"]) == 0.5


def test_byte_tokenizer_ids():
    """Row K08."""
    tokenizer = ByteTokenizer()
    assert tokenizer.vocab_size == 260
    assert (tokenizer.PAD, tokenizer.BOS, tokenizer.SEP, tokenizer.EOS) == (0, 1, 2, 3)
    assert tokenizer.encode("A") == [69]
    assert max(tokenizer.encode("ÿ")) < 260


def test_loss_falls_only_on_the_answer_and_its_end():
    ids, labels = ByteTokenizer().encode_dialogue("hi", "yo", length=9)
    assert ids == [1, 108, 109, 2, 125, 115, 3, 0, 0]
    assert labels == [IGNORE] * 4 + [125, 115, 3] + [IGNORE] * 2


def test_too_long_dialogue_is_refused_with_both_lengths():
    with pytest.raises(DataError, match="7 tokens; length is 6"):
        ByteTokenizer().encode_dialogue("hi", "yo", length=6)


@given(st.text(), st.text())
def test_dialogue_round_trip(question, answer):
    tokenizer = ByteTokenizer()
    ids, labels = tokenizer.encode_dialogue(question, answer)
    assert tokenizer.decode(tokenizer.encode(question)) == question
    targets = [label for label in labels if label != IGNORE]
    assert targets[-1] == tokenizer.EOS
    assert tokenizer.decode(targets) == answer
    assert len(ids) == len(labels)
