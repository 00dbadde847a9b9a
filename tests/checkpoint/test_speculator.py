"""Drafting heads come back from their folders as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from weft.checkpoint.speculator import load_speculator, save_speculator
from weft.core.errors import CheckpointError
from weft.models.block_draft import BlockHead
from weft.models.eagle import EagleHead
from weft.models.medusa import MedusaHeads
from weft.spec import ModelShape, ModelSpec


def _spec(dim: int = 16) -> ModelSpec:
    return ModelShape(dim=dim, num_layers=1, num_heads=2, num_kv_heads=2).build(20)


def _head(kind: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    if kind == "eagle":
        return EagleHead(_spec(), ffn_dim=24, seed=3, dtype=dtype)
    if kind == "block":
        return BlockHead(_spec(), ffn_dim=24, num_layers=2, rank=4, seed=3, dtype=dtype)
    heads = MedusaHeads(16, 3, dtype=dtype)
    for parameter in heads.parameters():
        nn.init.normal_(parameter)
    return heads


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["block", "eagle", "medusa"])
def test_a_head_survives_its_folder(tmp_path: Path, kind, dtype):
    head = _head(kind, dtype)
    save_speculator(head, tmp_path / "head")
    assert json.loads((tmp_path / "head" / "config.json").read_text())["speculator"] == kind
    loaded = load_speculator(tmp_path / "head", _spec())
    assert type(loaded) is type(head)
    for name, tensor in head.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_head_of_another_model_is_refused(tmp_path: Path):
    save_speculator(_head("medusa"), tmp_path)
    with pytest.raises(CheckpointError, match="width 16, this one is 32"):
        load_speculator(tmp_path, _spec(32))


def test_tensors_that_do_not_fit_are_named(tmp_path: Path):
    save_speculator(_head("medusa"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_heads": 4}))
    with pytest.raises(CheckpointError, match=r"heads\.3\.bias"):
        load_speculator(tmp_path, _spec())


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    save_speculator(_head("medusa"), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"dim": 16}))
    with pytest.raises(CheckpointError, match="kind None"):
        load_speculator(tmp_path, _spec())
