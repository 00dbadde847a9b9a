"""PEFT folders without PEFT: names, merged layers, and everything that is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from weft.adapt import lora
from weft.adapt.adapter import Adapter, Block, concatenated
from weft.adapt.lora import LoRAConfig
from weft.adapt.peft import WEIGHTS_FILE, load_peft, save_peft
from weft.adapt.peft_config import CONFIG_FILE, PeftConfig
from weft.core.errors import CheckpointError, ConfigError, InputFileError, UnsupportedError
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.spec import ExpertShape, ModelShape

PREFIX = "base_model.model.model.layers.0."
TOKENS = torch.arange(12)


def build(**changes: Any) -> Decoder:
    return Decoder(ModelShape(**{"dim": 32, "num_layers": 2} | changes).build(40), seed=1)


def trained(model: Decoder | None = None, **options: Any) -> Decoder:
    model = model or build()
    lora.inject(model, LoRAConfig(**{"rank": 4} | options))
    generator = torch.Generator().manual_seed(2)
    for _, parameter in lora.adapter_parameters(model):
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def output(model: Decoder) -> Tensor:
    with torch.inference_mode():
        return model(TOKENS, StepContext.packed([12]))


def write(folder: Path, tensors: dict[str, Tensor], **fields: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]} | fields
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    save_file(tensors, folder / WEIGHTS_FILE)
    return folder


def pair(name: str, num_rows: int = 32, width: int = 32, rank: int = 2) -> dict[str, Tensor]:
    return {
        f"{PREFIX}{name}.lora_A.weight": torch.ones(rank, width),
        f"{PREFIX}{name}.lora_B.weight": torch.ones(num_rows, rank),
    }


def test_a_pair_of_a_merged_layer_is_saved_once_for_each_part_and_means_the_same(
    tmp_path: Path,
) -> None:
    model = trained()
    save_peft(lora.adapter_of(model), tmp_path, model, base="some/base")
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    assert len(tensors) == 2 * 2 * 7
    shared = [tensors[f"{PREFIX}self_attn.{part}_proj.lora_A.weight"] for part in "qkv"]
    assert torch.equal(shared[0], shared[1])
    assert torch.equal(shared[0], shared[2])
    assert tensors[f"{PREFIX}self_attn.k_proj.lora_B.weight"].shape == (16, 4)
    fields = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert (fields["r"], fields["lora_alpha"]) == (4, 16)
    assert fields["base_model_name_or_path"] == "some/base"
    again = build()
    adapter = load_peft(tmp_path, again)
    assert [block.start for block in adapter.blocks["layers.0.mixer.qkv"]] == [0, 32, 48]
    lora.attach(again, adapter)
    torch.testing.assert_close(output(again), output(model), atol=1e-4, rtol=1e-4)
    lora.merge(again)
    torch.testing.assert_close(output(again), output(model), atol=1e-4, rtol=1e-4)


def test_one_pair_changes_its_own_rows_only(tmp_path: Path) -> None:
    model = build()
    adapter = load_peft(write(tmp_path, pair("self_attn.k_proj", 16)), model)
    (block,) = adapter.blocks["layers.0.mixer.qkv"]
    a_RI, b_FR, scale = concatenated((block,), 64)
    update_FI = scale * b_FR @ a_RI
    assert (update_FI[32:48] == 4.0).all()
    assert update_FI.count_nonzero() == 16 * 32
    assert (adapter.rank, adapter.num_parameters, adapter.size_bytes) == (2, 96, 384)


@given(st.lists(st.sampled_from([1, 2, 3]), min_size=3, max_size=3), st.floats(0.25, 4.0))
def test_blocks_side_by_side_are_one_pair(ranks: list[int], factor: float) -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = tuple(
        Block(
            torch.randn(rank, 5, generator=generator),
            torch.randn(4, rank, generator=generator),
            factor if part == 1 else 1.0,
            4 * part,
        )
        for part, rank in enumerate(ranks)
    )
    a_RI, b_FR, scale = concatenated(blocks, 12)
    assert a_RI.shape[0] == sum(ranks)
    for block in blocks:
        expected = block.scale * block.b_OR @ block.a_RI
        torch.testing.assert_close(scale * b_FR[block.rows] @ a_RI, expected)


def test_scale_follows_alpha_rank_and_patterns() -> None:
    config = PeftConfig(4, 8.0, rank_pattern={"q_proj": 2}, alpha_pattern={r"layers\.1\..*": 3.0})
    assert config.scale("model.layers.0.self_attn.q_proj", 2) == 4.0
    assert config.scale("model.layers.1.self_attn.q_proj", 2) == 1.5
    assert config.rank_of("model.layers.0.self_attn.q_proj") == 2
    assert config.rank_of("model.layers.0.self_attn.notq_proj") == 4
    assert PeftConfig(4, 8.0, rank_stabilized=True).scale("x", 4) == 4.0
    assert LoRAConfig(rank=4, alpha=8.0, rank_stabilized=True).scale == 4.0
    assert config.max_rank == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, "type 'IA3'"),
        ({"use_dora": True}, "use_dora = True: DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save .* merge_and_unload"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"lora_bias": True}, "lora_bias"),
        ({"target_parameters": ["experts"]}, "stacked experts"),
        ({"init_lora_weights": "pissa_niter_4"}, "changed the base model too"),
        ({"init_lora_weights": "mica"}, "not known here"),
        ({"use_something_new": True}, "use_something_new = True: something unknown"),
    ],
)
def test_what_is_not_computed_is_refused(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, pair("self_attn.q_proj"), **fields)
    with pytest.raises(UnsupportedError, match=f"(?s){message}") as caught:
        load_peft(folder, build())
    assert caught.value.fix


def test_fields_that_say_nothing_are_no_matter(tmp_path: Path) -> None:
    fields = {"use_dora": False, "modules_to_save": None, "eva_config": None, "new_thing": []}
    folder = write(tmp_path, pair("self_attn.q_proj"), init_lora_weights="gaussian", **fields)
    assert list(load_peft(folder, build()).blocks) == ["layers.0.mixer.qkv"]


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        (pair("self_attn.q_proj", 31), CheckpointError, r"\(31, 2\).*maps 32 to 32"),
        (pair("self_attn.q_proj", rank=3), CheckpointError, "rank 3, its config says 2"),
        (pair("self_attn.q_prj"), UnsupportedError, "did you mean 'model.layers.0.self_attn.q_p"),
        (
            {f"{PREFIX}self_attn.q_proj.lora_A.weight": torch.ones(2, 32)},
            CheckpointError,
            "has no lora_B",
        ),
        (
            {"base_model.model.lm_head.weight": torch.ones(2, 2)},
            UnsupportedError,
            "only pairs lora_A and lora_B",
        ),
        (
            {"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(2, 2)},
            UnsupportedError,
            "lora_embedding_A",
        ),
        ({}, CheckpointError, "holds no tensors"),
    ],
)
def test_wrong_tensors_are_named(
    tensors: dict[str, Tensor], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        load_peft(write(tmp_path, tensors), build())


def test_experts_that_a_router_chooses_are_refused(tmp_path: Path) -> None:
    experts = ExpertShape(num_experts=4, top_k=2, expert_dim=16)
    model = build(family="qwen3_moe", experts=experts)
    folder = write(tmp_path, pair("mlp.experts.1.gate_proj", 16))
    with pytest.raises(UnsupportedError, match="experts that a router chooses"):
        load_peft(folder, model)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    model = build()
    with pytest.raises(InputFileError, match=f"has no {CONFIG_FILE}"):
        load_peft(tmp_path, model)
    folder = write(tmp_path, {})
    (folder / WEIGHTS_FILE).write_bytes(b"nonsense")
    with pytest.raises(InputFileError, match="not a safetensors file"):
        load_peft(folder, model)
    (folder / WEIGHTS_FILE).rename(folder / "adapter_model.bin")
    with pytest.raises(InputFileError, match=r"but a pickle\n.*safe_serialization"):
        load_peft(folder, model)
    (folder / CONFIG_FILE).write_text("{")
    with pytest.raises(InputFileError, match="not valid JSON"):
        load_peft(folder, model)
    (folder / CONFIG_FILE).write_text("[]")
    with pytest.raises(InputFileError, match="no JSON object"):
        load_peft(folder, model)
    (folder / CONFIG_FILE).write_text('{"peft_type": "LORA", "r": 0}')
    with pytest.raises(CheckpointError, match="rank 0"):
        load_peft(folder, model)


def test_adapters_of_other_models_are_refused() -> None:
    adapter = lora.adapter_of(trained())
    with pytest.raises(CheckpointError, match="fix: use an adapter that was trained on this"):
        lora.attach(build(dim=64), adapter)
    with pytest.raises(CheckpointError, match=r"no linear layer 'layers\.1"):
        lora.attach(build(num_layers=1), adapter)
    with pytest.raises(CheckpointError, match="changes no layer"):
        lora.attach(build(), Adapter({}))
    with pytest.raises(ConfigError, match="takes no pair"):
        lora.attach(trained(), adapter)
    with pytest.raises(ConfigError, match=r"call lora\.inject"):
        lora.adapter_of(build())
