from __future__ import annotations

import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from weft.core.errors import ConfigError
from weft.text import bpe
from weft.text.byte_level import BYTE_TO_CHARACTER, PATTERN, count_words

WORKED = {"faster": 8, "higher": 6, "stronger": 7}


def test_worked_example_of_character_bpe():
    """Row K02: the reference's pair total 115 and second merge of count 8 are wrong (ERR-12)."""
    words = [bpe.word_symbols(word, "</w>") for word in WORKED]
    pairs = bpe.count_pairs(words, list(WORKED.values()))
    assert sum(pairs.values()) == 119
    assert max(pairs, key=lambda pair: pairs[pair]) == ("e", "r</w>")
    assert pairs["e", "r</w>"] == 21
    assert pairs["s", "t"] == 15
    alphabet_size = len({symbol for word in words for symbol in word} | set("".join(WORKED)))
    model = bpe.train(WORKED, vocab_size=alphabet_size + 2, end_of_word="</w>")
    assert model.merges == (("e", "r</w>"), ("s", "t"))
    assert model.split("faster") == ["f", "a", "st", "er</w>"]


def test_pair_of_smaller_ids_wins_a_tie():
    model = bpe.train({"cd": 3, "ab": 3, "ad": 3}, vocab_size=5)
    assert model.merges == (("a", "b"),)


def test_special_tokens_take_the_first_ids_then_alphabet_in_code_point_order():
    model = bpe.train({"ba": 1}, vocab_size=5, special_tokens=("<s>",), alphabet="z")
    assert model.vocab == {"<s>": 0, "a": 1, "b": 2, "z": 3, "ba": 4}


def test_training_stops_at_min_frequency():
    assert bpe.train({"ab": 2, "cd": 1}, vocab_size=99, min_frequency=2).merges == (("a", "b"),)


def test_too_small_vocabulary_is_refused_with_the_size_needed():
    with pytest.raises(ConfigError, match=r"(?s)vocab_size is 2.*at least 4"):
        bpe.train({"abcd": 1}, vocab_size=2)


def test_leftmost_pair_is_merged_first():
    model = bpe.BPE({"a": 0, "aa": 1}, (("a", "a"),))
    assert model.split("aaa") == ["aa", "a"]


def test_whole_word_skips_merges_when_told():
    vocab = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}
    assert bpe.BPE(vocab, (("a", "b"),)).encode("abc") == [3, 2]
    assert bpe.BPE(vocab, (("a", "b"),), ignore_merges=True).encode("abc") == [4]


def _library_training(texts: list[str], vocab_size: int, min_frequency: int) -> dict:
    split = pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    return json.loads(library.to_str())["model"]


@pytest.mark.parametrize(("vocab_size", "min_frequency"), [(700, 0), (3000, 2)])
def test_trained_merges_equal_the_library_on_real_text(corpus, vocab_size, min_frequency):
    expected = _library_training(corpus, vocab_size, min_frequency)
    model = bpe.train(
        count_words(corpus),
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        alphabet=BYTE_TO_CHARACTER,
        min_frequency=min_frequency,
    )
    assert model.merges == tuple((first, second) for first, second in expected["merges"])
    assert model.vocab == expected["vocab"]


def _library_model(word_counts: dict[str, int], vocab_size: int) -> dict:
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=1, show_progress=False)
    library.train_from_iterator((w for w, n in word_counts.items() for _ in range(n)), trainer)
    return json.loads(library.to_str())["model"]


@given(st.dictionaries(st.text("abc", min_size=1, max_size=12), st.integers(1, 9), max_size=8))
def test_trained_merges_equal_the_library_on_repetitive_words(word_counts):
    """Runs of one letter are where overlapping pairs and equal spellings meet."""
    expected = _library_model(word_counts, 40)
    model = bpe.train(word_counts, vocab_size=40)
    assert model.vocab == expected["vocab"]
    assert model.merges == tuple((first, second) for first, second in expected["merges"])
