from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import TokenizerError
from weft.text.vocabulary import add_tokens


def test_old_ids_stay_and_new_ones_follow(tokenizer):
    """Row K09, the tokenizer's half."""
    larger = add_tokens(tokenizer, ["<tool>", "weft stack"])
    old = tokenizer.backend.get_vocab()
    new = larger.backend.get_vocab()
    assert {token: new[token] for token in old} == old
    assert larger.token_id("<tool>") == tokenizer.vocab_size
    assert larger.vocab_size == tokenizer.vocab_size + 2
    assert larger.decode(larger.encode("a <tool> b")) == "a <tool> b"
    assert larger.token_id("weft stack") in larger.encode("the weft stack is")
    assert larger.eos_ids == tokenizer.eos_ids


@pytest.fixture(scope="module")
def larger(tokenizer):
    return add_tokens(tokenizer, ["<|new-token|>"])


@given(text=st.text())
def test_text_without_new_tokens_is_encoded_as_before(tokenizer, larger, text):
    assert larger.encode(text) == tokenizer.encode(text)


def test_special_ones_are_matched_only_where_allowed(tokenizer):
    larger = add_tokens(tokenizer, ["<|call|>"], special=True)
    id = larger.token_id("<|call|>")
    assert id in larger.special_ids
    assert id not in larger.encode("<|call|>")
    assert larger.encode("<|call|>", special=True) == [id]
    assert larger.decode([id]) == ""


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [([""], "is empty"), (["<x>", "<x>"], "given twice"), (["<|pad|>"], "already, with id 3")],
)
def test_unusable_tokens_are_refused(tokenizer, tokens, reason):
    with pytest.raises(TokenizerError, match=reason):
        add_tokens(tokenizer, tokens)
