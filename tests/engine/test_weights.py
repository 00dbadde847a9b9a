"""Weights: bound without a copy, updated in place or not at all, loaded again from disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from tests.engine.support import GREEDY, VOCAB_SIZE, make_llm, tokenizer, tokens_of
from weft.checkpoint.hf import hf_tensors, save_model
from weft.checkpoint.named import Places
from weft.core.errors import CheckpointError, ConfigError, ResourceError, UnsupportedError
from weft.dist.tensor_info import TensorInfo
from weft.engine.async_engine import AsyncEngine
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.models.decoder import Decoder
from weft.models.heads import logits
from weft.nn.context import StepContext
from weft.spec import ModelShape
from weft.spec.families import spec_from_hf

PROMPT = list(range(20, 50))
# Families whose tensors lie differently in files: transposed, per expert, two in one.
CONFIGS = {
    "gpt2": {"model_type": "gpt2", "vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4,
             "n_positions": 64},
    "qwen3_moe": {"model_type": "qwen3_moe", "vocab_size": 64, "hidden_size": 32,
                  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                  "head_dim": 8, "intermediate_size": 48, "moe_intermediate_size": 16,
                  "num_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 64},
    "phi3": {"model_type": "phi3", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
             "max_position_embeddings": 64, "pad_token_id": 0},
    "gpt_oss": {"model_type": "gpt_oss", "vocab_size": 64, "hidden_size": 32,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                "head_dim": 8, "intermediate_size": 16, "num_local_experts": 4,
                "num_experts_per_tok": 2, "sliding_window": 8, "max_position_embeddings": 64},
}  # fmt: skip


def make_model(seed: int, family: str = "llama", **fields) -> Decoder:
    shape = ModelShape(
        family=family, dim=32, num_layers=2, num_heads=4, num_kv_heads=2, context_length=128,
        **fields,
    )  # fmt: skip
    built = Decoder(shape.build(VOCAB_SIZE, eos_ids=tokenizer().eos_ids), seed=seed).eval()
    for parameter in built.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(4.0)
    return built


def scores(decoder: Decoder) -> torch.Tensor:
    with torch.inference_mode():
        return logits(decoder, decoder(torch.tensor(PROMPT), StepContext.packed([len(PROMPT)])))


def addresses(decoder: Decoder) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in decoder.state_dict().items()}


def snapshot(decoder: Decoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in decoder.state_dict().items()}


def unchanged(decoder: Decoder, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(before[name], now) for name, now in decoder.state_dict().items())


# Bound.


@pytest.mark.parametrize("tied", [True, False])
def test_an_engine_computes_with_the_very_tensors_of_the_module(tied):
    decoder = make_model(0, tie_embeddings=tied)
    before = addresses(decoder)
    llm = make_llm(decoder=decoder)
    llm.generate([PROMPT], GREEDY)
    assert llm.model is decoder
    assert addresses(llm.core.runner.model) == before
    assert (decoder.head_weight.data_ptr() == decoder.embed.weight.data_ptr()) == tied


# Updated.


@pytest.mark.parametrize("names", ["ours", "theirs"])
@pytest.mark.parametrize("tied", [True, False])
def test_after_an_update_the_engines_logits_are_the_trainers(names, tied):
    trainer = make_model(1, tie_embeddings=tied)
    llm = make_llm(decoder=make_model(2, tie_embeddings=tied))
    before = addresses(llm.model)
    tensors = hf_tensors(trainer) if names == "theirs" else trainer.state_dict()
    report = llm.weights.update(tensors)
    assert torch.equal(scores(llm.model), scores(trainer))
    assert addresses(llm.model) == before
    assert (report.weight_version, report.num_tensors) == (1, len(tensors))
    assert report.size_bytes == sum(t.numel() * t.element_size() for t in tensors.values())
    expected = make_llm(decoder=trainer).generate([PROMPT], GREEDY)
    assert tokens_of(llm.generate([PROMPT], GREEDY)) == tokens_of(expected)


def of_family(family: str, seed: int) -> Decoder:
    return Decoder(spec_from_hf(CONFIGS[family]), seed=seed).eval()


@pytest.mark.parametrize("family", CONFIGS)
def test_every_layout_of_a_file_is_understood(family):
    trainer, decoder = of_family(family, 1), of_family(family, 2)
    llm = LLM(decoder, None, EngineConfig(num_blocks=8))
    llm.weights.update(hf_tensors(trainer).items())
    assert unchanged(decoder, snapshot(trainer))
    wrong = {name: torch.ones(3, 5) for name in hf_tensors(trainer) if name.endswith("weight")}
    with pytest.raises(CheckpointError, match="the model's is"):
        llm.weights.update(wrong, partial=True)


def test_names_can_be_mixed_and_a_tied_head_may_come_too():
    trainer = make_model(1, tie_embeddings=True)
    ours, theirs = trainer.state_dict(), hf_tensors(trainer)
    mixed = {name: t for name, t in ours.items() if "layers.0." in name}
    mixed |= {name: t for name, t in theirs.items() if "layers.0." not in name}
    llm = make_llm(decoder=make_model(2, tie_embeddings=True))
    llm.weights.update({**mixed, "lm_head.weight": trainer.head_weight})
    assert torch.equal(scores(llm.model), scores(trainer))


def test_numbers_are_converted_to_the_engines_type():
    trainer = make_model(1).double()
    llm = make_llm(decoder=make_model(2))
    llm.weights.update(trainer.state_dict())
    assert llm.model.dtype is torch.float32
    assert torch.equal(scores(llm.model), scores(trainer.float()))


def test_old_prefixes_are_not_found_after_an_update():
    llm = make_llm(decoder=make_model(2))
    llm.generate([PROMPT], GREEDY)
    assert llm.generate([PROMPT], GREEDY)[0].num_cached_tokens > 0
    llm.weights.update(make_model(1).state_dict(), version=7)
    after = llm.generate([PROMPT], GREEDY)[0]
    assert after.num_cached_tokens == 0
    assert set(after.weight_versions) == {7}
    assert llm.weights.version == llm.weight_version == 7


def test_a_partial_update_leaves_the_rest():
    decoder = make_model(2)
    before = snapshot(decoder)
    llm = make_llm(decoder=decoder)
    name = "model.layers.1.self_attn.k_proj.weight"
    llm.weights.update({name: torch.ones(16, 32)}, partial=True)
    rows = decoder.state_dict()["layers.1.mixer.qkv.weight"]
    assert torch.equal(rows[32:48], torch.ones(16, 32))
    before["layers.1.mixer.qkv.weight"][32:48] = 1.0
    assert unchanged(decoder, before)


WRONG = {
    "unknown": ({"layers.0.mixer.qvk.weight": (64, 32)}, "no tensor 'layers.0.mixer.qvk.weight'"),
    "shape": ({"norm.weight": (33,)}, r"shape \(33,\), the model's is \(32,\)"),
    "transposed part": (
        {"model.layers.0.self_attn.k_proj.weight": (32, 16)},
        r"shape \(32, 16\), the model's is \(16, 32\)",
    ),
    "whole and part": (
        {"model.layers.0.self_attn.k_proj.weight": (16, 32)},
        "comes whole and in parts",
    ),
}


@pytest.mark.parametrize(("extra", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_tensor_is_refused_before_anything_is_written(extra, message):
    decoder = make_model(2)
    before = snapshot(decoder)
    llm = make_llm(decoder=decoder)
    tensors = make_model(1).state_dict()
    tensors |= {name: torch.ones(shape) for name, shape in extra.items()}
    with pytest.raises(CheckpointError, match=message):
        llm.weights.update(tensors)
    assert unchanged(decoder, before)
    assert llm.weight_version == 0
    assert llm.core.gate.state == "running"


def test_missing_tensors_parts_and_repeated_ones_are_refused():
    trainer, decoder = make_model(1), make_model(2)
    before, llm = snapshot(decoder), make_llm(decoder=decoder)
    theirs = hf_tensors(trainer)
    del theirs["model.layers.1.self_attn.v_proj.weight"]
    with pytest.raises(CheckpointError, match=r"'layers\.1\.mixer\.qkv\.weight' of the"):
        llm.weights.update(theirs)
    with pytest.raises(CheckpointError, match="comes twice"):
        llm.weights.update([*trainer.state_dict().items(), ("norm.weight", torch.ones(32))])
    with pytest.raises(ConfigError, match="version 0 is not above the present one, 0"):
        llm.weights.update(trainer.state_dict(), version=0)
    assert unchanged(decoder, before)


def infos(decoder: Decoder) -> list[TensorInfo]:
    return [TensorInfo.of(name, tensor) for name, tensor in decoder.state_dict().items()]


def test_an_update_in_buckets_is_complete_with_the_last_one():
    trainer = make_model(1)
    llm = make_llm(decoder=make_model(2))
    tensors = list(trainer.state_dict().items())
    with llm.weights.begin(infos(trainer)) as update:
        for start in range(0, len(tensors), 3):
            update.write(tensors[start : start + 3])
            assert llm.weight_version == 0
    assert update.report.weight_version == llm.weight_version == 1
    assert torch.equal(scores(llm.model), scores(trainer))


def interrupt(llm: LLM, trainer: Decoder, **options) -> None:
    tensors = list(trainer.state_dict().items())

    def some() -> Iterator[tuple[str, torch.Tensor]]:
        yield from tensors[:5]
        raise ConnectionError

    begun = llm.weights.begin(infos(trainer), **options)
    with pytest.raises(ConnectionError), begun as update:
        update.write(some())


def test_a_staged_update_that_breaks_off_leaves_the_old_weights_serving():
    decoder = make_model(2)
    before, llm = snapshot(decoder), make_llm(decoder=decoder)
    expected = tokens_of(llm.generate([PROMPT], GREEDY))
    interrupt(llm, make_model(1), staged=True)
    assert unchanged(decoder, before)
    assert tokens_of(llm.generate([PROMPT], GREEDY)) == expected
    with llm.weights.begin(infos(decoder), staged=True) as update:
        update.write(make_model(1).state_dict().items())
        assert unchanged(decoder, before)
    assert torch.equal(scores(decoder), scores(make_model(1)))


def test_half_written_weights_compute_nothing_until_a_whole_update_came():
    trainer, llm = make_model(1), make_llm(decoder=make_model(2))
    interrupt(llm, trainer)
    assert llm.core.gate.state == "torn"
    with pytest.raises(ResourceError, match="half old, half new"):
        llm.generate([PROMPT], GREEDY)
    with pytest.raises(ResourceError, match="half old, half new"):
        llm.weights.update({"norm.weight": torch.ones(32)}, partial=True)
    llm.weights.update(trainer.state_dict())
    expected = make_llm(decoder=trainer).generate([PROMPT], GREEDY)
    assert tokens_of(llm.generate([PROMPT], GREEDY)) == tokens_of(expected)


def test_buckets_must_keep_to_what_was_announced():
    trainer, llm = make_model(1), make_llm(decoder=make_model(2))
    with (
        pytest.raises(CheckpointError, match="'x' of shape"),
        llm.weights.begin(infos(trainer)) as update,
    ):
        update.write([("x", torch.ones(2))])
    assert llm.core.gate.state == "running"
    with pytest.raises(CheckpointError, match="was announced and did not come"):
        with llm.weights.begin(infos(trainer)) as update:
            update.write(list(trainer.state_dict().items())[:-1])
    assert llm.core.gate.state == "torn"


def test_an_async_engine_updates_between_two_steps():
    import asyncio

    trainer = make_model(1)
    engine = AsyncEngine(make_model(2), tokenizer(), EngineConfig(num_blocks=64, block_size=4))

    async def update() -> int:
        report = await engine.update_weights(trainer.state_dict())
        with pytest.raises(CheckpointError):
            await engine.update_weights({"x": torch.ones(1)})
        return report.weight_version

    try:
        assert asyncio.run(update()) == 1
        assert torch.equal(scores(engine.core.model), scores(trainer))
    finally:
        engine.shutdown()


# Loaded again.


def test_a_reload_changes_outputs_exactly_once(tmp_path):
    save_model(make_model(2), tmp_path, tokenizer=tokenizer())
    llm = LLM.load(tmp_path, config=EngineConfig(num_blocks=64, block_size=4))
    before = addresses(llm.model)
    first = tokens_of(llm.generate([PROMPT], GREEDY))
    assert llm.weights.num_loads == 1
    assert tokens_of(llm.generate([PROMPT], GREEDY)) == first
    save_model(make_model(1), tmp_path)
    assert tokens_of(llm.generate([PROMPT], GREEDY)) == first
    llm.weights.reload()
    assert llm.weights.num_loads == 2
    second = tokens_of(llm.generate([PROMPT], GREEDY))
    assert second != first
    assert tokens_of(llm.generate([PROMPT], GREEDY)) == second
    assert second == tokens_of(make_llm(decoder=make_model(1)).generate([PROMPT], GREEDY))
    assert addresses(llm.model) == before
    assert llm.weight_version == 1


def test_another_folder_becomes_the_source(tmp_path):
    llm = make_llm(decoder=make_model(2))
    with pytest.raises(UnsupportedError, match="does not know where its weights came from"):
        llm.weights.reload()
    save_model(make_model(1), tmp_path)
    assert llm.weights.reload(tmp_path, version=3).num_tensors > 0
    assert llm.weights.reload().num_tensors > 0
    assert (llm.weights.num_loads, llm.weight_version) == (2, 4)
    assert torch.equal(scores(llm.model), scores(make_model(1)))


def test_a_folder_that_does_not_fit_changes_nothing(tmp_path):
    save_model(of_family("gpt2", 1), tmp_path)
    decoder = make_model(2)
    before, llm = snapshot(decoder), make_llm(decoder=decoder)
    with pytest.raises(CheckpointError, match="lacks tensor"):
        llm.weights.reload(tmp_path)
    assert unchanged(decoder, before)
    assert (llm.core.gate.state, llm.weight_version, llm.weights.num_loads) == ("running", 0, 0)


def test_a_load_that_breaks_off_closes_the_engine_until_one_succeeds(tmp_path, monkeypatch):
    save_model(make_model(1), tmp_path)
    llm = make_llm(decoder=make_model(2))

    def broken(*_):
        raise CheckpointError("the file ended while it was read")

    with monkeypatch.context() as patch:
        patch.setattr("weft.checkpoint.transfer._read_direct", broken)
        with pytest.raises(CheckpointError, match="ended while it was read"):
            llm.weights.reload(tmp_path)
    assert llm.core.gate.state == "torn"
    llm.weights.reload(tmp_path)
    assert llm.core.gate.state == "running"
    assert torch.equal(scores(llm.model), scores(make_model(1)))


def test_random_weights_need_no_weight_files(tmp_path):
    save_model(make_model(1), tmp_path, tokenizer=tokenizer())
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    config = EngineConfig(num_blocks=64, block_size=4)
    llm = LLM.load(tmp_path, config=config, load_format="dummy")
    assert llm.weights.num_loads == 1
    assert len(llm.generate([PROMPT], GREEDY)[0].tokens) == GREEDY.max_tokens
    before = scores(llm.model)
    llm.weights.reload()
    assert llm.weights.num_loads == 2
    assert not torch.equal(scores(llm.model), before)
    with pytest.raises(ConfigError, match="load_format is 'dumy'"):
        LLM.load(tmp_path, config=config, load_format="dumy")


def test_places_know_the_shape_of_a_part_in_either_layout():
    places = Places(of_family("gpt2", 0))
    place = places.find("transformer.h.0.attn.c_attn.weight")
    assert place is not None
    assert place.shape == tuple(reversed(place.target.shape))


def test_requests_under_way_go_on_with_the_new_weights():
    llm = make_llm(decoder=make_model(2))
    stream = llm.stream(PROMPT, dataclasses.replace(GREEDY, max_tokens=6))
    versions = [next(stream).weight_version]
    llm.weights.update(make_model(1).state_dict())
    versions += [delta.weight_version for delta in stream]
    assert versions == [0, 1, 1, 1, 1, 1]
