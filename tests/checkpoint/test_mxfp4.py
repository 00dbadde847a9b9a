"""gpt-oss with its experts as published: MXFP4 blocks and scales in place of the tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from weft.checkpoint.hf import hf_tensors, load_model, save_model
from weft.checkpoint.safetensors import SINGLE, TensorFiles, write_tensors
from weft.checkpoint.stored_forms import dequantise_mxfp4
from weft.core.errors import CheckpointError
from weft.models.decoder import Decoder
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec, MoESpec, NormSpec, RouterSpec

NUM_EXPERTS, DIM, HIDDEN = 2, 64, 32


def gpt_oss() -> Decoder:
    """Return one layer whose widths are whole groups of 32."""
    moe = MoESpec(
        NUM_EXPERTS,
        1,
        MLPSpec(HIDDEN, "clamped_swish", bias=True),
        RouterSpec(score="softmax_chosen", bias=True),
    )
    attention = AttentionSpec(2, 1, 16, qkv_bias=True, out_bias=True, sinks=True)
    layers = (LayerSpec(attention, moe),)
    norm = NormSpec(eps=1e-5, float32_weight=True)
    return Decoder(ModelSpec("gpt_oss", 40, DIM, layers, norm, context_length=64), seed=0)


def packed(num_rows: int, num_columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random blocks of 16 bytes and their exponents."""
    generator = torch.Generator().manual_seed(seed)
    shape = (NUM_EXPERTS, num_rows, num_columns // 32)
    blocks = torch.randint(256, (*shape, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(118, 130, shape, generator=generator, dtype=torch.uint8)
    return blocks, scales


def number(code: int) -> float:
    """Return a 4-bit float: sign, two bits of exponent with bias 1, one of mantissa."""
    sign = -1.0 if code & 8 else 1.0
    exponent, mantissa = (code >> 1) & 3, code & 1
    if exponent == 0:
        return sign * mantissa * 0.5
    return sign * (1 + mantissa / 2) * 2.0 ** (exponent - 1)


def test_unpacking_is_the_formats_definition():
    blocks, scales = packed(3, 64, seed=0)
    actual = dequantise_mxfp4(blocks, scales, torch.float32)
    assert actual.shape == (NUM_EXPERTS, 64, 3)
    for expert in range(NUM_EXPERTS):
        for row in range(3):
            for column in range(64):
                byte = int(blocks[expert, row, column // 32, column % 32 // 2])
                code = byte >> 4 if column % 2 else byte & 15
                scale = 2.0 ** (int(scales[expert, row, column // 32]) - 127)
                assert float(actual[expert, column, row]) == number(code) * scale


@pytest.mark.parity
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_unpacking_equals_transformers(dtype):
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    blocks, scales = packed(6, 64, seed=1)
    expected = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=dtype)
    assert torch.equal(dequantise_mxfp4(blocks, scales, dtype), expected)


def packed_folder(folder: Path) -> dict[str, torch.Tensor]:
    """Write a model with packed experts; returns what they unpack to under their names."""
    model = gpt_oss()
    save_model(model, folder)
    tensors, unpacked = hf_tensors(model), {}
    for name, rows, columns in (("gate_up_proj", 2 * HIDDEN, DIM), ("down_proj", DIM, HIDDEN)):
        full = f"model.layers.0.mlp.experts.{name}"
        blocks, scales = packed(rows, columns, seed=rows)
        unpacked[full] = dequantise_mxfp4(blocks, scales, torch.float32)
        assert tensors.pop(full).shape == unpacked[full].shape
        tensors |= {f"{full}_blocks": blocks, f"{full}_scales": scales}
    write_tensors(folder / SINGLE, tensors)
    return unpacked


def test_a_packed_folder_loads_as_its_unpacked_weights(tmp_path: Path):
    unpacked = packed_folder(tmp_path / "packed")
    model = load_model(tmp_path / "packed", dtype=torch.float32)
    for name, tensor in unpacked.items():
        assert torch.equal(hf_tensors(model)[name], tensor)
    experts = model.layers[0].ffn.experts
    gate_up = unpacked["model.layers.0.mlp.experts.gate_up_proj"]
    assert torch.equal(experts.gate_up[1, 3], gate_up[1, :, 6]), "even columns are the gate"
    assert torch.equal(experts.gate_up[1, HIDDEN + 3], gate_up[1, :, 7]), "odd ones the up part"
    save_model(model, tmp_path / "unpacked")
    assert set(unpacked) <= TensorFiles(tmp_path / "unpacked").names
    again = load_model(tmp_path / "unpacked", dtype=torch.float32)
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_blocks_without_scales_are_refused_by_name(tmp_path: Path):
    packed_folder(tmp_path)
    files = TensorFiles(tmp_path)
    kept = {name: files.read(name) for name in files.names if not name.endswith("proj_scales")}
    write_tensors(tmp_path / SINGLE, kept)
    with pytest.raises(CheckpointError, match=r"gate_up_proj|down_proj"):
        load_model(tmp_path)
