from __future__ import annotations

import pytest
import torch

from tests.plan.specs import MIXERS, SPECS, model
from weft.adapt.lora import LoRAConfig, inject
from weft.core.errors import ConfigError, ResourceError
from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.nn.kv_cache import bytes_per_block, bytes_per_sequence
from weft.ops.native.bindings import load_library
from weft.plan.figure import Figure
from weft.plan.memory import (
    activation_bytes,
    crossover_tokens,
    kv_bytes_per_token,
    mixer_kv_bytes,
    mixer_state_bytes,
    num_kv_blocks,
    state_bytes_per_sequence,
    training_memory,
)
from weft.plan.training import estimate_training
from weft.spec import (
    AttentionSpec,
    GatedDeltaNetSpec,
    HardwareSpec,
    KimiDeltaSpec,
    LayerSpec,
    Mamba2Spec,
    MambaSpec,
    MatrixRWKVSpec,
    MixerSpec,
    MLASpec,
    MLPSpec,
    ModelShape,
    ModelSpec,
    MoESpec,
    RWKVSpec,
    zoo,
)


def test_cache_bytes_equal_the_engine() -> None:
    spec = ModelShape().build(100)
    assert kv_bytes_per_token(spec) * 16 == bytes_per_block(spec, 16, torch.float32)
    per_block = bytes_per_block(spec, 16, torch.bfloat16)
    blocks = num_kv_blocks(spec, memory_bytes=per_block * 7 + 3, block_size=16, dtype="bfloat16")
    assert blocks == 7


@pytest.mark.parametrize("name", SPECS)
def test_every_kind_keeps_what_the_engine_keeps(name: str) -> None:
    spec = SPECS[name]
    for dtype in (torch.float32, torch.bfloat16):
        text = str(dtype).removeprefix("torch.")
        assert kv_bytes_per_token(spec, dtype=text) * 16 == bytes_per_block(spec, 16, dtype)
        assert state_bytes_per_sequence(spec, dtype=text) == bytes_per_sequence(spec, dtype)


KV_BYTES_PER_TOKEN = {
    "gpt2-xl": 307_200, "llama-2-7b": 524_288, "llama-2-13b": 819_200, "llama-2-70b": 327_680,
    "llama-3.1-8b": 131_072, "llama-3.1-70b": 327_680, "llama-3.1-405b": 516_096,
    "qwen2.5-7b": 57_344, "qwen2.5-32b": 262_144, "qwen2.5-72b": 327_680, "qwen3-8b": 147_456,
    "qwen3-32b": 262_144, "qwen3-30b-a3b": 98_304, "qwen3-235b-a22b": 192_512,
    "mixtral-8x7b": 131_072, "deepseek-v3": 70_272, "deepseek-v2": 69_120,
    "deepseek-v2-lite": 31_104,
}  # fmt: skip


@pytest.mark.parametrize("name", KV_BYTES_PER_TOKEN)
def test_published_cache_sizes_at_two_bytes(name: str) -> None:
    spec = zoo.spec(name)
    assert isinstance(spec, ModelSpec)
    assert kv_bytes_per_token(spec, dtype="bfloat16") == KV_BYTES_PER_TOKEN[name]


def test_smaller_caches() -> None:
    llama, deepseek = zoo.spec("llama-3-70b"), zoo.spec("deepseek-v3.2")
    assert isinstance(llama, ModelSpec)
    assert isinstance(deepseek, ModelSpec)
    assert kv_bytes_per_token(llama, dtype="int8") == 163_840
    # One byte per number of the index key and a float32 factor for its 128.
    both = kv_bytes_per_token(deepseek, dtype="bfloat16", index_dtype="float8")
    assert both == 70_272 + 8_052
    with pytest.raises(ConfigError, match="no element type 'bf16'"):
        kv_bytes_per_token(llama, dtype="bf16")


def test_a_cache_of_eight_small_layers() -> None:
    layer = LayerSpec(AttentionSpec(8, 8, 64), MLPSpec(2048))
    spec = ModelSpec("llama", 32_000, 512, (layer,) * 8)
    assert kv_bytes_per_token(spec, dtype="float16") * 2048 == 32 * 2**20


def test_states_and_where_a_growing_cache_overtakes_them() -> None:
    two = {"dtype": "bfloat16", "state_dtype": "bfloat16"}
    kimi, delta = KimiDeltaSpec(32, 128), GatedDeltaNetSpec(16, 32, 128, 128)
    assert mixer_state_bytes(kimi, **two) == 1_122_304
    assert mixer_state_bytes(delta, **two) == 1_097_728
    latent, grouped = MLASpec(32, 512, 128, 64, 128), AttentionSpec(16, 2, 256)
    assert crossover_tokens(1_122_304, mixer_kv_bytes(latent, dtype="bfloat16")) == 975
    assert crossover_tokens(1_097_728, mixer_kv_bytes(grouped, dtype="bfloat16")) == 536
    # The matrix stays in float32 unless it is asked for otherwise.
    assert mixer_state_bytes(delta, dtype="bfloat16") == 1_097_728 + 2 * 32 * 128 * 128


def test_heads_are_divided_and_latents_are_not() -> None:
    grouped, latent = AttentionSpec(16, 4, 64), MLASpec(32, 512, 128, 64, 128)
    sizes = [mixer_kv_bytes(grouped, dtype="bfloat16", tensor_parallel=n) for n in (1, 2, 4, 8)]
    assert sizes == [1024, 512, 256, 256]
    assert mixer_kv_bytes(latent, dtype="bfloat16", tensor_parallel=8) == 1152
    kimi = KimiDeltaSpec(32, 128)
    assert mixer_state_bytes(kimi, tensor_parallel=4) * 4 == mixer_state_bytes(kimi)


def test_a_model_of_states_has_no_blocks() -> None:
    spec = model(MIXERS["mamba-2"])
    with pytest.raises(ConfigError, match="keeps nothing per token"):
        num_kv_blocks(spec, memory_bytes=2**30, block_size=16, dtype="float32")


WIDE: dict[str, MixerSpec] = {
    "grouped": AttentionSpec(4, 2, 64),
    "latent": MLASpec(4, 64, 48, 16, 48, query_latent_dim=96),
    "gated delta net": GatedDeltaNetSpec(2, 4, 64, 64),
    "kimi delta": KimiDeltaSpec(4, 64),
    "mamba-2": Mamba2Spec(8, 64, 64),
    "rwkv": RWKVSpec(256, 256),
    "rwkv-5": MatrixRWKVSpec(256, 4, 64),
    "rwkv-6": MatrixRWKVSpec(256, 4, 64, shift_rank=16, decay_rank=32),
    "mamba": MambaSpec(512, 16),
}


@pytest.mark.parametrize("name", WIDE)
def test_activations_of_every_mixer_are_of_the_right_size(name: str) -> None:
    spec = ModelSpec("llama", 300, 256, (LayerSpec(WIDE[name], MoESpec(8, 2, MLPSpec(128))),))
    module = Decoder(spec)
    growth = (saved_bytes(module, 256, "float32") - saved_bytes(module, 128, "float32")) / 128
    assert activation_bytes(spec, "float32") == pytest.approx(growth, rel=0.4)


@pytest.mark.parametrize("name", SPECS)
def test_every_kind_has_a_ledger(name: str) -> None:
    ledger = training_memory(SPECS[name], micro_batch_tokens=64)
    assert ledger.activations > 64 * 4 * 2 * SPECS[name].dim


def saved_bytes(model: Decoder, num_tokens: int, precision: str) -> int:
    """Return the bytes of all storages that autograd keeps, weights left out."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = torch.arange(num_tokens)
    bf16 = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), bf16:
        hidden = model(tokens, StepContext.packed([num_tokens]))
        loss, _ = heads.cross_entropy_sum(model, hidden, tokens)
    assert loss.requires_grad
    return sum(seen.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_activations_are_what_autograd_saves(precision: str, family: str) -> None:
    spec = ModelShape(family=family, dim=128, num_layers=3).build(300)
    model = Decoder(spec)
    # Two lengths, because some of what is kept (cast weights) does not grow with the tokens.
    growth = saved_bytes(model, 128, precision) - saved_bytes(model, 64, precision)
    predicted = activation_bytes(spec, precision) * 64
    if load_library() is None:  # torch's own formulas keep intermediate values too
        assert predicted < growth < 1.7 * predicted
        return
    tolerance = 0.001 if family == "llama" else 0.15  # head norms keep their own statistics
    assert predicted == pytest.approx(growth, rel=tolerance)


@pytest.mark.parametrize("rank", [4, 64])
def test_adapters_keep_what_autograd_saves_for_them(rank: int) -> None:
    spec = ModelShape(dim=128, num_layers=6).build(300)
    model = Decoder(spec)
    inject(model, LoRAConfig(rank=rank))
    growth = (saved_bytes(model, 128, "float32") - saved_bytes(model, 64, "float32")) / 64
    predicted = activation_bytes(spec, "float32", adapter_rank=rank)
    assert predicted - activation_bytes(spec, "float32") == 4 * rank * 4 * spec.num_layers
    if load_library() is None:
        assert predicted < growth < 1.7 * predicted
        return
    # The first norm keeps nothing: no weight below it is trained.
    assert predicted == pytest.approx(growth, rel=0.02)


def test_the_ledger_refuses_what_cannot_fit() -> None:
    ledger = training_memory(ModelShape().build(1000), micro_batch_tokens=4096)
    ledger.require(2**40, fix="-")
    with pytest.raises(ResourceError, match="activations alone takes") as caught:
        ledger.require(2**20, fix="lower micro_batch_tokens")
    assert "lower micro_batch_tokens" in str(caught.value)
    assert ledger.total == sum(vars(ledger).values())


def test_more_work_takes_longer() -> None:
    hardware = HardwareSpec("test", {"float32": 1e11}, 2**30, 2e10)
    small, large = (
        estimate_training(
            ModelShape(dim=dim).build(1000), hardware, tokens_per_step=4096, sequence_length=256
        )
        for dim in (128, 512)
    )
    assert small.step_s.value < large.step_s.value
    assert 0 < small.mfu.value < large.mfu.value < 1
    assert small.step_s.low < small.step_s.value < small.step_s.high
    with pytest.raises(ConfigError, match="no matmul peak"):
        estimate_training(
            ModelShape().build(10),
            hardware,
            tokens_per_step=64,
            sequence_length=64,
            precision="bfloat16",
        )


def test_a_figure_knows_its_error() -> None:
    figure = Figure.within(100.0, 1.25, "s", "fit")
    assert figure.contains(110)
    assert not figure.contains(130)
    assert figure.error(80) == pytest.approx(0.25)
