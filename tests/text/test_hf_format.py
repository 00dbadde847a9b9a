from __future__ import annotations

import json

import pytest

from weft.core.errors import ResourceError, TokenizerError
from weft.text import hf_format


def test_older_files_write_merges_with_a_space(tokenizer):
    document = json.loads(tokenizer.to_json())
    model = hf_format.read_bpe(tokenizer.to_json())
    document["model"]["merges"] = [" ".join(pair) for pair in model.merges]
    assert hf_format.read_bpe(json.dumps(document)) == model


def test_other_models_have_no_merges():
    with pytest.raises(TokenizerError, match="model is WordPiece"):
        hf_format.read_bpe('{"model": {"type": "WordPiece", "vocab": {}}}')


def test_token_given_as_object_or_text():
    assert hf_format.token_text({"content": "<s>", "lstrip": True}) == "<s>"
    assert hf_format.token_text("<s>") == "<s>"
    assert hf_format.token_text(True) is None


def test_config_of_another_maker_is_kept(tmp_path):
    files = hf_format.TokenizerFiles("{}", {"tokenizer_class": "Qwen2Tokenizer", "x": 1})
    hf_format.write_tokenizer(tmp_path, files)
    assert hf_format.read_tokenizer(tmp_path) == files


def test_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match="the disk is full"):
        hf_format.write_tokenizer(tmp_path, hf_format.TokenizerFiles("{}"))
    assert not list(tmp_path.iterdir())
