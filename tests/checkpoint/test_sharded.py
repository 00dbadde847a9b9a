"""Each rank reads its own part of a folder, and the parts are those of the whole model."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.models.ranks import on_ranks
from weft.checkpoint.hf import load_model, save_model
from weft.checkpoint.safetensors import TensorFiles
from weft.checkpoint.sharded import fill_sharded, load_sharded
from weft.core.errors import CheckpointError
from weft.models.decoder import Decoder
from weft.models.families import key_map, rules
from weft.models.hf_keys import parts
from weft.models.sharded import ShardedDecoder, load_whole
from weft.models.sharding import plan_sharding
from weft.spec import ExpertShape, MLASpec, MLPSpec, ModelShape, ModelSpec, MoESpec, RouterSpec


def specs() -> dict[str, ModelSpec]:
    shape = ModelShape(dim=32, num_layers=2, num_heads=4, num_kv_heads=2, ffn_dim=48)
    mixed = dataclasses.replace(
        shape, family="qwen3_moe", experts=ExpertShape(num_experts=4, expert_dim=16)
    )
    llama = shape.build(101)
    router = RouterSpec(score="sigmoid", correction_bias=True, group_score="top2_sum")
    latent = dataclasses.replace(
        llama.layers[0],
        mixer=MLASpec(4, 16, 8, 4, 8, query_latent_dim=12, latent_norm_eps=1e-6),
        ffn=MoESpec(4, 2, MLPSpec(16), router, shared=MLPSpec(16)),
    )
    biased = dataclasses.replace(llama.layers[0].mixer, qkv_bias=True)
    return {
        "llama": dataclasses.replace(llama, tie_embeddings=False),
        "qwen2": dataclasses.replace(
            llama,
            family="qwen2",
            layers=(dataclasses.replace(llama.layers[0], mixer=biased),) * 2,
        ),
        "qwen3": dataclasses.replace(shape, family="qwen3").build(101),
        "qwen3_moe": mixed.build(101),
        "deepseek_v3": dataclasses.replace(
            llama,
            family="deepseek_v3",
            layers=(dataclasses.replace(latent, ffn=MLPSpec(48)), latent),
            tie_embeddings=False,
        ),
    }


@pytest.fixture(params=specs())
def folder(request, tmp_path):
    model = Decoder(specs()[request.param], seed=1)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2)))
    # Several small files, so that a part of a merged tensor may be in another one.
    save_model(model, tmp_path, max_shard_bytes=20_000)
    return tmp_path


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("expert_split", ["width", "experts"])
def test_parts_read_from_files_are_the_parts_of_the_whole(folder, size, expert_split):
    whole = load_model(folder)
    plan = plan_sharding(whole.spec, size, expert_split=expert_split)

    def work(group):
        expected = ShardedDecoder(plan, group).to_empty(device="cpu")
        load_whole(expected, whole.state_dict())
        return expected, load_sharded(folder, group, expert_split=expert_split)

    for expected, got in on_ranks(size, work):
        tensors = got.state_dict()
        assert tensors.keys() == expected.state_dict().keys()
        for name, tensor in expected.state_dict().items():
            assert torch.equal(tensors[name], tensor), name
            assert tensors[name].dtype == tensor.dtype


def test_a_rank_reads_about_its_share(folder):
    def work(group):
        model = load_sharded(folder, group, dtype=torch.bfloat16)
        spec = model.plan.whole
        files = TensorFiles(folder, key_map(spec).aliases)
        report = fill_sharded(model, files, list(parts(rules(spec))))
        held = sum(tensor.numel() for tensor in model.state_dict().values())
        assert model.dtype is torch.bfloat16
        return report.size_bytes, 4 * held, files.size_bytes

    for read, held, whole in on_ranks(2, work):
        assert read == held
        assert read < 0.62 * whole


def test_a_missing_and_a_misshapen_tensor_are_named(tmp_path):
    spec = specs()["llama"]
    save_model(Decoder(spec), tmp_path / "other")
    other = dataclasses.replace(spec, layers=spec.layers[:1])
    save_model(Decoder(other), tmp_path / "short")
    wide = ModelShape(dim=32, num_layers=2, num_heads=4, num_kv_heads=2, ffn_dim=64).build(101)
    save_model(Decoder(dataclasses.replace(wide, tie_embeddings=False)), tmp_path / "wide")
    for name, words in (("short", "layers.1"), ("wide", "gate_proj.*has shape")):
        config = (tmp_path / "other" / "config.json").read_text()
        (tmp_path / name / "config.json").write_text(config)
        with pytest.raises(CheckpointError, match=words):
            on_ranks(2, lambda group, name=name: load_sharded(tmp_path / name, group))
