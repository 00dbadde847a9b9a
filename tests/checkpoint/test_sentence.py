from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from tests.models.tiny import VOCAB_SIZE, tiny_encoder
from weft.checkpoint.encoders import is_encoder, save_encoder
from weft.checkpoint.sentence import load_embedder, load_pooling, save_embedder
from weft.core.errors import CheckpointError, ConfigError, UnsupportedError
from weft.models.embed import TextEmbedder
from weft.nn.context import StepContext
from weft.spec import PoolingSpec
from weft.text.tokenizer import Tokenizer

TEXTS = ["a b c", "b", "a a a a a a a a a a a a", "", "c b a c"]
CLS, SEP = VOCAB_SIZE - 2, VOCAB_SIZE - 1


def tokenizer() -> Tokenizer:
    vocabulary = {"[UNK]": 0, "a": 1, "b": 2, "c": 3, "[CLS]": CLS, "[SEP]": SEP}
    backend = Backend(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return Tokenizer(backend.to_str())


def embedder(**options) -> TextEmbedder:
    return TextEmbedder(tiny_encoder(), tokenizer(), **options)


def test_a_text_has_one_vector_whatever_it_is_batched_with():
    made = embedder()
    together = made.embed(TEXTS)
    torch.testing.assert_close(together, made.embed(TEXTS, tokens_per_batch=1))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(TEXTS)))
    assert made.embed([]).shape == (0, 32)


def test_a_vector_is_the_mean_over_the_text_and_what_surrounds_it():
    made, ids = embedder(pooling=PoolingSpec("mean", normalise=False)), [CLS, 1, 2, SEP]
    with torch.inference_mode():
        hidden_TD = made.model(torch.tensor(ids), StepContext.packed([4]))
    torch.testing.assert_close(made.embed(["a b"])[0], hidden_TD.mean(0))


def test_a_long_text_loses_its_end_and_keeps_the_tokens_around_it():
    made = embedder(max_tokens=5)
    long, short = made.embed(["a b c a b c a b c", "a b c"])
    torch.testing.assert_close(long, short)


@pytest.mark.parametrize("max_tokens", [2, 41])
def test_impossible_lengths_are_refused(max_tokens: int):
    with pytest.raises(ConfigError, match=f"max_tokens is {max_tokens}"):
        embedder(max_tokens=max_tokens)


@pytest.mark.parametrize("kind", ["mean", "cls", "max", "last"])
@pytest.mark.parametrize("normalise", [True, False])
def test_a_sentence_encoder_comes_back_as_it_was(kind, normalise: bool, tmp_path: Path):
    made = embedder(pooling=PoolingSpec(kind, normalise), max_tokens=20)
    save_embedder(made, tmp_path)
    again = load_embedder(tmp_path)
    assert (again.pooling, again.max_tokens) == (made.pooling, 20)
    assert torch.equal(again.embed(TEXTS), made.embed(TEXTS))


def test_the_widths_a_model_was_trained_for_come_back(tmp_path: Path):
    save_embedder(embedder(short_dims=(8, 16)), tmp_path)
    assert load_embedder(tmp_path).short_dims == (8, 16)
    assert is_encoder(tmp_path)
    assert not is_encoder(tmp_path / "nowhere")


def test_a_plain_encoder_gives_the_normalised_mean(tmp_path: Path):
    save_encoder(tiny_encoder(), tmp_path, tokenizer=tokenizer())
    assert load_embedder(tmp_path).pooling == PoolingSpec("mean", normalise=True)


def write_parts(folder: Path, kinds: list[str], pooling: dict) -> None:
    modules = [{"idx": i, "path": f"{i}", "type": f"x.{kind}"} for i, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1").mkdir()
    (folder / "1" / "config.json").write_text(json.dumps(pooling))


def test_older_and_newer_files_name_the_pooling_each_in_their_way(tmp_path: Path):
    for name, pooling in (
        ("old", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}),
        ("new", {"pooling_mode": "cls"}),
    ):
        (tmp_path / name).mkdir()
        write_parts(tmp_path / name, ["Transformer", "Pooling"], pooling)
        assert load_pooling(tmp_path / name) == PoolingSpec("cls", normalise=False)


def test_parts_and_poolings_we_lack_are_refused_by_name(tmp_path: Path):
    cases = (
        (["Transformer", "Pooling", "Dense"], {"pooling_mode": "mean"}, "Dense"),
        (["Transformer", "Pooling"], {"pooling_mode_mean_sqrt_len_tokens": True}, "sqrt_len"),
        (
            ["Transformer", "Pooling"],
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
            "max_tokens",
        ),
    )
    for number, (kinds, pooling, named) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_parts(folder, kinds, pooling)
        with pytest.raises(UnsupportedError, match=named):
            load_pooling(folder)


def test_a_file_without_pooling_is_refused(tmp_path: Path):
    write_parts(tmp_path, ["Transformer", "Pooling"], {"pooling_mode_max_tokens": False})
    with pytest.raises(CheckpointError, match="no pooling"):
        load_pooling(tmp_path)
