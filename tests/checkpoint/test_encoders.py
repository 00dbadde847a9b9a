from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.models.tiny import flat, texts_of, tiny_encoder, tiny_encoder_decoder
from weft.checkpoint.encoders import (
    load_encoder,
    load_encoder_decoder,
    save_encoder,
    save_encoder_decoder,
)
from weft.checkpoint.safetensors import TensorFiles, write_tensors
from weft.core.errors import CheckpointError, InputFileError, UnsupportedError


def rewrite(folder: Path, change) -> None:
    """Save a folder's tensors under other names, or some of them."""
    files = TensorFiles(folder)
    tensors = {name: files.read(name).clone() for name in files.names}
    write_tensors(folder / "model.safetensors", change(tensors))


def assert_equal(first: torch.nn.Module, second: torch.nn.Module) -> None:
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("architecture", ["BertModel", "BertForMaskedLM"])
def test_an_encoder_comes_back_as_it_was(architecture: str, tmp_path: Path):
    model = tiny_encoder(architectures=[architecture])
    save_encoder(model, tmp_path)
    again = load_encoder(tmp_path)
    assert again.spec == model.spec
    assert_equal(model, again)


@pytest.mark.parametrize("tied", [True, False])
def test_an_encoder_decoder_comes_back_as_it_was(tied: bool, tmp_path: Path):
    model = tiny_encoder_decoder(tie_word_embeddings=tied)
    save_encoder_decoder(model, tmp_path)
    again = load_encoder_decoder(tmp_path)
    assert again.spec == model.spec
    assert_equal(model, again)
    sources, targets = texts_of(0, (4, 7)), texts_of(1, (3, 2))
    arguments = (flat(sources), (4, 7), flat(targets), (3, 2))
    with torch.inference_mode():
        assert torch.equal(model(*arguments), again(*arguments))


def test_an_element_type_can_be_chosen(tmp_path: Path):
    save_encoder(tiny_encoder(), tmp_path)
    assert load_encoder(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_the_encoder_inside_a_larger_checkpoint_is_found(tmp_path: Path):
    """bert-base as published: names with "bert.", a second head, norms as in TensorFlow."""
    model = tiny_encoder()
    save_encoder(model, tmp_path)

    def published(tensors):
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        renamed = {}
        for name, tensor in tensors.items():
            for new, older in old.items():
                name = name.replace(new, older)
            renamed[f"bert.{name}"] = tensor
        head, bias = torch.zeros(2, 32), torch.zeros(32)
        return {**renamed, "cls.seq_relationship.weight": head, "cls.predictions.bias": bias}

    rewrite(tmp_path, published)
    assert_equal(load_encoder(tmp_path), model)


def test_a_checkpoint_without_pooler_is_an_encoder_without_pooler(tmp_path: Path):
    save_encoder(tiny_encoder(), tmp_path)
    rewrite(tmp_path, lambda tensors: {n: t for n, t in tensors.items() if "pooler" not in n})
    model = load_encoder(tmp_path)
    assert model.pooler is None
    assert not model.spec.pooler


def test_a_missing_tensor_is_named(tmp_path: Path):
    save_encoder(tiny_encoder(), tmp_path)
    lost = "encoder.layer.1.output.dense.weight"
    rewrite(tmp_path, lambda tensors: {n: t for n, t in tensors.items() if n != lost})
    with pytest.raises(CheckpointError, match=lost):
        load_encoder(tmp_path)


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path):
    save_encoder_decoder(tiny_encoder_decoder(), tmp_path)
    name = "decoder.block.1.layer.1.EncDecAttention.k.weight"
    rewrite(tmp_path, lambda tensors: {**tensors, name: torch.zeros(3, 32)})
    with pytest.raises(CheckpointError, match=rf"{name}.*\(3, 32\).*\(32, 32\)"):
        load_encoder_decoder(tmp_path)


def test_folders_of_other_kinds_are_refused(tmp_path: Path):
    with pytest.raises(InputFileError, match=r"no config\.json"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UnsupportedError, match="llama"):
        load_encoder(tmp_path)
