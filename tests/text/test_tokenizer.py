from __future__ import annotations

import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, trainers

from weft.core.errors import InputFileError, RequestError, TokenizerError
from weft.text.tokenizer import Tokenizer


@given(text=st.text())
def test_any_text_survives_a_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(ids=st.lists(st.integers(0, 899)), skip_special=st.booleans())
def test_decoding_equals_the_library_for_any_tokens(tokenizer, ids, skip_special):
    expected = tokenizer.backend.decode(ids, skip_special_tokens=skip_special)
    assert tokenizer.decode(ids, skip_special=skip_special) == expected


@given(text=st.text())
def test_token_bytes_join_to_the_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


def test_numbers_are_digit_sequences(tokenizer):
    assert [tokenizer.decode([id]) for id in tokenizer.encode("2048")] == ["2", "0", "4", "8"]


def test_special_tokens_in_text_are_text_unless_allowed(tokenizer):
    text = "a<|im_end|>"
    assert tokenizer.encode(text, special=True)[-1] == tokenizer.token_id("<|im_end|>")
    plain = tokenizer.encode(text)
    assert tokenizer.special_ids.isdisjoint(plain)
    assert tokenizer.decode(plain) == text


def test_batch_equals_one_by_one(tokenizer, corpus):
    texts = [*corpus, "", "<|im_end|>"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_roles_of_a_trained_tokenizer(tokenizer):
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_ids) == (0, 3, (0, 2))
    assert tokenizer.end_of_turn_id == 2
    assert tokenizer.special_ids == {0, 1, 2, 3}
    assert tokenizer.vocab_size == 900
    assert tokenizer.token_bytes(2) == b""
    assert tokenizer.special_text(2) == "<|im_end|>"
    assert tokenizer.special_text(4) is None


def test_unknown_ids_decode_to_nothing(tokenizer):
    assert tokenizer.decode([-1, 900, 10**9]) == ""


def test_half_a_surrogate_pair_is_refused_with_its_place(tokenizer):
    with pytest.raises(RequestError, match=r"'\\ud800'\) at character 2"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(RequestError, match="at character 0"):
        tokenizer.encode_batch(["fine", "\udfff"])
    with pytest.raises(RequestError, match="is a bytes"):
        tokenizer.encode(b"x")


def test_model_with_too_few_rows_is_refused(tokenizer):
    tokenizer.check_model(900)
    tokenizer.check_model(1024)
    with pytest.raises(TokenizerError, match="900 tokens; the model's embedding has 899 rows"):
        tokenizer.check_model(899)


def test_saved_tokenizer_loads_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new" / "folder")
    loaded = Tokenizer.load(tmp_path / "new" / "folder")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert (loaded.bos_id, loaded.pad_id, loaded.eos_ids) == (0, 3, (0, 2))
    assert loaded.chat_template.source == tokenizer.chat_template.source
    assert Tokenizer.load(tmp_path / "new" / "folder" / "tokenizer.json").eos_ids == ()


def test_fingerprint_follows_content_not_layout(tokenizer):
    document = json.loads(tokenizer.to_json())
    reordered = json.dumps(dict(reversed(document.items())))
    assert Tokenizer(reordered).fingerprint == tokenizer.fingerprint
    document["model"]["merges"].pop()
    assert Tokenizer(json.dumps(document)).fingerprint != tokenizer.fingerprint


def _folder(tokenizer, path, **files):
    path.mkdir(exist_ok=True)
    (path / "tokenizer.json").write_text(tokenizer.to_json())
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return path


def test_roles_of_other_peoples_folders(tokenizer, tmp_path):
    folder = _folder(
        tokenizer,
        tmp_path,
        special_tokens_map={"pad_token": "<|pad|>", "bos_token": "<|pad|>"},
        tokenizer_config={
            "bos_token": {"content": "<|im_start|>", "lstrip": False},
            "eos_token": "<|endoftext|>",
            "add_bos_token": False,
            "unk_token": None,
            "chat_template": [
                {"name": "tool_use", "template": "no"},
                {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}"},
            ],
        },
        generation_config={"eos_token_id": [2, 0]},
    )
    loaded = Tokenizer.load(folder)
    assert (loaded.bos_id, loaded.pad_id, loaded.eos_ids) == (1, 3, (0, 2))
    assert loaded.chat_template.render([{"role": "user", "content": "x"}]) == "<|im_start|>x"
    loaded.save(tmp_path / "copy")
    assert Tokenizer.load(tmp_path / "copy").eos_ids == (0, 2)


def test_single_end_token_and_older_template_file(tokenizer, tmp_path):
    folder = _folder(
        tokenizer,
        tmp_path,
        generation_config={"eos_token_id": 2},
        chat_template={"chat_template": "{{ messages[0].content }}"},
    )
    loaded = Tokenizer.load(folder)
    assert loaded.eos_ids == (2,)
    assert loaded.end_of_turn_id is None
    assert loaded.chat_template is not None


def test_cutting_and_filling_in_the_file_are_not_applied(tokenizer):
    document = json.loads(tokenizer.to_json())
    document["truncation"] = {
        "direction": "Right",
        "max_length": 2,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    cut = Tokenizer(json.dumps(document))
    assert cut.decode(cut.encode("a long text")) == "a long text"
    assert cut.decode(cut.encode_batch(["a long text"])[0]) == "a long text"


def test_missing_tokenizer_names_the_path(tmp_path):
    with pytest.raises(InputFileError, match="there is no tokenizer at"):
        Tokenizer.load(tmp_path / "nothing")
    with pytest.raises(InputFileError, match=r"has no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(InputFileError, match="SentencePiece"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"version": "1.0"', b"{}", b"[]", b"\xff\xfe\x00"])
def test_damaged_tokenizer_says_what_to_do(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"is damaged(?s:.*)fix: copy the file again"):
        Tokenizer.load(tmp_path)


def test_damaged_config_says_which_file(tokenizer, tmp_path):
    folder = _folder(tokenizer, tmp_path, tokenizer_config=["not", "an", "object"])
    with pytest.raises(InputFileError, match=r"tokenizer_config\.json holds a list"):
        Tokenizer.load(folder)


def test_begin_token_is_added_only_on_request(tokenizer):
    document = json.loads(tokenizer.to_json())
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
        },
    }
    begins = Tokenizer(json.dumps(document))
    assert begins.encode("a", add_special_tokens=True) == [0, *begins.encode("a")]


def test_word_level_tokenizer_of_another_maker():
    library = tokenizers.Tokenizer(models.WordLevel(unk_token="?"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    library.train_from_iterator(["b a a ."], trainers.WordLevelTrainer(special_tokens=["?"]))
    words = Tokenizer(library.to_str())
    assert words.decode(words.encode("a b .")) == "a b ."
