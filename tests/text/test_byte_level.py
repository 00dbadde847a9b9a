from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from weft.text import byte_level, hf_format

TEXT = st.one_of(
    st.text(),
    st.text("ab1 2'sStT\n\r\t\x0b\x0c\x1c_-=.", max_size=40),
    st.text("ñÉ中文👩\u200dе\u0301\u00a0\u2028ſK٣Ⅷ'sx ", max_size=30),
)


def test_stand_ins_equal_the_library():
    assert set(byte_level.BYTE_TO_CHARACTER) == set(pre_tokenizers.ByteLevel.alphabet())
    everything = bytes(range(256))
    assert byte_level.to_bytes(byte_level.to_characters(everything)) == everything


def test_text_outside_the_stand_ins_is_utf8():
    assert byte_level.to_bytes("日") == "日".encode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1234", ["x", " =", " ", "1", "2", "3", "4"]),
        ("I'll don'T", ["I", "'ll", " don", "'T"]),
        ("    return a", ["   ", " return", " a"]),
        ("a();\n\n  b", ["a", "();\n\n", " ", " b"]),
    ],
)
def test_words_of_code_and_prose(text, words):
    assert byte_level.split_words(text) == words


@given(TEXT)
def test_words_equal_the_library_and_lose_nothing(text):
    split = pre_tokenizers.Split(tokenizers.Regex(byte_level.PATTERN), "isolated")
    words = byte_level.split_words(text)
    assert words == [word for word, _ in split.pre_tokenize_str(text)]
    assert "".join(words) == text


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_words_equal_the_library(text):
    split = pre_tokenizers.Split(tokenizers.Regex(byte_level.PATTERN), "isolated")
    assert byte_level.split_words(text) == [word for word, _ in split.pre_tokenize_str(text)]


@given(text=TEXT)
def test_own_encoder_equals_the_library_on_any_text(tokenizer, text):
    model = hf_format.read_bpe(tokenizer.to_json())
    assert byte_level.encode(model, text) == tokenizer.encode(text)


def test_own_encoder_equals_the_library_on_real_text(tokenizer, corpus):
    model = hf_format.read_bpe(tokenizer.to_json())
    for text in corpus:
        assert byte_level.encode(model, text[:4000]) == tokenizer.encode(text[:4000])


def test_word_table_keeps_the_most_frequent_within_its_bound():
    counts = byte_level.count_words(["a b a c a d b e f g", "a b h i"], max_words=2)
    assert dict(counts) == {"Ġa": 2, "Ġb": 3}
