from __future__ import annotations

from fractions import Fraction

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from weft.core.errors import ConfigError
from weft.text import wordpiece
from weft.text.bpe import word_symbols

WORDS = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}


def test_worked_scores_are_exact():
    """Row K03: h+i has 6/(12·6); counting one of the two h of "higher" gives 1/6 (ERR-12)."""
    words = [word_symbols(word, "</w>") for word in ("faster", "higher", "stronger")]
    scores = wordpiece.scores(words, [8, 6, 7])
    assert scores["r", "o"] == scores["o", "n"] == Fraction(1, 7)
    assert scores["h", "i"] == Fraction(1, 12)
    assert max(scores.values()) == Fraction(1, 7)
    assert wordpiece.best_pair(words, [8, 6, 7]) == ("o", "n")


def test_training_merges_by_score():
    """hug·10 pug·5 pun·12 bun·4 hugs·5: g+s has 5/(20·5) and wins although u+g is more frequent."""
    model = wordpiece.train(WORDS, vocab_size=9)
    assert list(model.vocab)[-1] == "##gs"
    assert model.split("hugs") == ["h", "##u", "##gs"]


def test_longest_piece_is_taken_first():
    model = wordpiece.WordPiece({"[UNK]": 0, "un": 1, "una": 2, "##able": 3, "##ble": 4})
    assert model.split("unable") == ["una", "##ble"]
    assert model.encode("unable") == [2, 4]


def test_word_that_cannot_be_spelt_is_unknown_as_a_whole():
    model = wordpiece.WordPiece({"[UNK]": 0, "a": 1, "##a": 2})
    assert model.split("ab") == ["[UNK]"]
    assert len(model.split("a" * 100)) == 100
    assert model.split("a" * 101) == ["[UNK]"]


def test_too_small_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="vocab_size is 3"):
        wordpiece.train(WORDS, vocab_size=3)


@given(st.lists(st.text("hugpnbsx", min_size=1, max_size=12), max_size=8))
def test_encoding_equals_the_library(words):
    model = wordpiece.train(WORDS, vocab_size=20)
    library = tokenizers.Tokenizer(
        models.WordPiece(model.vocab, unk_token="[UNK]", max_input_chars_per_word=100)
    )
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    expected = library.encode(" ".join(words)).ids
    assert [id for word in words for id in model.encode(word)] == expected
