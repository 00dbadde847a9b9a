from __future__ import annotations

import pytest

from weft.core.errors import ConfigError, DataError
from weft.text.chat import CHATML
from weft.text.train import DEFAULT_SPECIAL_TOKENS, train_bpe


def test_special_tokens_come_first_and_the_template_is_chatml(tokenizer):
    ids = [tokenizer.token_id(token) for token in DEFAULT_SPECIAL_TOKENS]
    assert ids == [0, 1, 2, 3]
    assert tokenizer.chat_template.source == CHATML


def test_same_texts_in_any_order_give_the_same_tokenizer(tokenizer, corpus):
    assert train_bpe(reversed(corpus), 900).fingerprint == tokenizer.fingerprint


def test_texts_may_be_a_generator():
    assert train_bpe((text for text in ["ab ab", "ab"]), 261).token_id("ab") == 260


def test_small_corpus_ends_before_the_vocabulary_is_full():
    assert train_bpe(["ab ab"], 5000).vocab_size < 300


def test_other_special_tokens_give_no_template_and_no_roles():
    tokenizer = train_bpe(["ab"], 300, special_tokens=("<s>",))
    assert tokenizer.chat_template is None
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_ids) == (None, None, ())
    assert tokenizer.special_ids == {0}


@pytest.mark.parametrize("texts", [[], [""], iter(())])
def test_empty_corpus_is_refused(texts):
    with pytest.raises(DataError, match="no text to train a tokenizer on"):
        train_bpe(texts, 300)


def test_vocabulary_without_room_for_bytes_is_refused():
    with pytest.raises(ConfigError, match="alone need 260"):
        train_bpe(["ab"], 256)


@pytest.mark.parametrize(("tokens", "reason"), [(("a", "a"), "2 times"), (("",), "as a token")])
def test_bad_special_tokens_are_refused(tokens, reason):
    with pytest.raises(ConfigError, match=reason):
        train_bpe(["ab"], 300, special_tokens=tokens)
