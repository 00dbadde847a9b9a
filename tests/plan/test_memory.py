from __future__ import annotations

import pytest
import torch

from weft.core.errors import ConfigError, ResourceError
from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.nn.kv_cache import bytes_per_block
from weft.ops.native.bindings import load_library
from weft.plan.figure import Figure
from weft.plan.memory import (
    activation_bytes,
    kv_bytes_per_token,
    num_kv_blocks,
    training_memory,
)
from weft.plan.training import estimate_training
from weft.spec import HardwareSpec, ModelShape


def test_cache_bytes_equal_the_engine() -> None:
    spec = ModelShape().build(100)
    assert kv_bytes_per_token(spec) * 16 == bytes_per_block(spec, 16, torch.float32)
    per_block = bytes_per_block(spec, 16, torch.bfloat16)
    blocks = num_kv_blocks(spec, memory_bytes=per_block * 7 + 3, block_size=16, dtype="bfloat16")
    assert blocks == 7


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
