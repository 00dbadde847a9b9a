from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from weft.checkpoint.hf import hf_tensors, load_hf_tensors, load_model, load_spec, save_model
from weft.core.errors import CheckpointError, InputFileError, ResourceError, UnsupportedError
from weft.models.decoder import Decoder
from weft.spec import ModelShape


def build(family: str = "llama", *, tie: bool = True) -> Decoder:
    shape = ModelShape(family=family, dim=32, num_layers=2, tie_embeddings=tie)
    return Decoder(shape.build(40, bos_id=0, eos_ids=(1, 2)), seed=2)


def assert_same(a: Decoder, b: Decoder) -> None:
    assert a.spec == b.spec
    for (name, x), (_, y) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        assert torch.equal(x, y), name


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("tie", [True, False])
def test_save_and_load_is_exact(tmp_path: Path, family: str, tie: bool) -> None:
    model = build(family, tie=tie)
    save_model(model, tmp_path)
    assert_same(load_model(tmp_path), model)
    names = set(hf_tensors(model))
    assert "model.layers.1.self_attn.k_proj.weight" in names
    assert ("lm_head.weight" in names) is not tie


def test_shards_and_their_index(tmp_path: Path) -> None:
    model = build()
    save_model(model, tmp_path, max_shard_bytes=10_000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    assert_same(load_model(tmp_path), model)
    next(tmp_path.glob("model-00002-*")).unlink()
    with pytest.raises(CheckpointError, match="copy the missing shard"):
        load_model(tmp_path)


def test_element_type_is_kept_or_changed(tmp_path: Path) -> None:
    save_model(build(), tmp_path, dtype=torch.bfloat16)
    assert load_model(tmp_path).dtype == torch.bfloat16
    assert load_model(tmp_path, dtype=torch.float32).dtype == torch.float32
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"


def test_end_tokens_of_the_generation_config_count(tmp_path: Path) -> None:
    save_model(build(), tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    assert load_spec(tmp_path).eos_ids == (1, 2, 7)


def test_weights_go_between_models_in_place() -> None:
    source, target = build(), Decoder(build().spec, seed=9)
    before = target.embed.weight.data_ptr()
    load_hf_tensors(target, hf_tensors(source))
    assert_same(source, target)
    assert target.embed.weight.data_ptr() == before


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    save_model(build(), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors .* cannot be read.*\n.*truncated"
    ):
        load_model(tmp_path)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    save_model(build(), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickle"):
        load_model(tmp_path)


def test_a_wrong_shape_names_tensor_found_and_expected(tmp_path: Path) -> None:
    save_model(build(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["intermediate_size"] += 64
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"gate_proj.*\(128, 32\).*\(192, 32\)"):
        load_model(tmp_path)


def test_missing_and_surplus_tensors_are_named(tmp_path: Path) -> None:
    save_model(build(tie=False), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"lacks tensor 'model\.layers\.2"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(CheckpointError, match=r"unknown tensor 'model\.layers\.1"):
        load_model(tmp_path)


def test_a_wrong_folder_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"has no config\.json"):
        load_model(tmp_path)
    with pytest.raises(InputFileError, match="is not a folder"):
        load_model(tmp_path / "none")


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Let the system refuse longer files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("kind", "loader"), [("bert", "load_encoder"), ("t5", "load_encoder_decoder")]
)
def test_an_encoder_says_what_loads_it(tmp_path: Path, kind: str, loader: str):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(UnsupportedError, match=rf"'{kind}'.*no decoder\n.*encoders\.{loader}$"):
        load_model(tmp_path)


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    model, changed = build(), build()
    changed.embed.weight.data.zero_()
    save_model(model, tmp_path)
    before = sorted(file.name for file in tmp_path.iterdir())
    with largest_file(20_000), pytest.raises(ResourceError, match="the disk is full"):
        save_model(changed, tmp_path)
    assert_same(load_model(tmp_path), model)
    assert sorted(file.name for file in tmp_path.iterdir()) == before
