"""Packed tensors: decoded as their definitions say, found by name, loaded like plain ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoint.test_hf import assert_same, build
from weft.checkpoint.hf import load_model, save_model
from weft.checkpoint.stored_forms import (
    E2M1,
    STORED_FORMS,
    dequantise_fp8_blocks,
    dequantise_mxfp4,
    find_form,
)
from weft.core.errors import CheckpointError
from weft.models.decoder import Decoder
from weft.spec import ModelShape

FP8, MXFP4 = STORED_FORMS


def test_fp8_blocks_are_numbers_times_the_scale_of_their_block() -> None:
    torch.manual_seed(0)
    weight = torch.randn(200, 300).to(torch.float8_e4m3fn)
    scales = torch.rand(2, 3) + 0.5
    result = dequantise_fp8_blocks(weight, scales, torch.float32)
    for row, column in [(0, 0), (127, 127), (128, 127), (199, 299), (5, 256)]:
        expected = weight[row, column].float() * scales[row // 128, column // 128]
        assert result[row, column] == expected
    assert dequantise_fp8_blocks(weight, scales, torch.bfloat16).dtype == torch.bfloat16


def test_a_wrong_number_of_block_scales_is_refused() -> None:
    weight = torch.zeros(200, 300).to(torch.float8_e4m3fn)
    with pytest.raises(CheckpointError, match=r"200 x 300 .*\(2, 3\).*\(1, 3\)"):
        dequantise_fp8_blocks(weight, torch.ones(1, 3), torch.float32)


def test_mxfp4_is_two_numbers_per_byte_and_a_power_of_two_per_group() -> None:
    generator = torch.Generator().manual_seed(1)
    experts, rows, groups, size = 2, 3, 2, 16
    blocks = torch.randint(256, (experts, rows, groups, size), generator=generator).to(torch.uint8)
    scales = torch.randint(120, 134, (experts, rows, groups), generator=generator).to(torch.uint8)
    result = dequantise_mxfp4(blocks, scales, torch.float32)
    assert result.shape == (experts, 2 * groups * size, rows)
    for e in range(experts):
        for r in range(rows):
            for column in range(2 * groups * size):
                group, place = divmod(column, 2 * size)
                byte = int(blocks[e, r, group, place // 2])
                number = E2M1[byte >> 4 if place % 2 else byte & 15]
                expected = number * 2.0 ** (int(scales[e, r, group]) - 127)
                assert result[e, column, r] == expected


@pytest.mark.parity
def test_mxfp4_agrees_with_transformers() -> None:
    integrations = pytest.importorskip("transformers.integrations.mxfp4")
    generator = torch.Generator().manual_seed(2)
    blocks = torch.randint(256, (2, 4, 3, 16), generator=generator).to(torch.uint8)
    scales = torch.randint(110, 140, (2, 4, 3), generator=generator).to(torch.uint8)
    expected = integrations.convert_moe_packed_tensors(blocks, scales, dtype=torch.bfloat16)
    assert torch.equal(dequantise_mxfp4(blocks, scales, torch.bfloat16), expected)


def test_a_form_is_found_by_all_its_names() -> None:
    assert find_form("a.weight", {"a.weight", "a.weight_scale_inv"}) is FP8
    assert find_form("a", {"a_blocks", "a_scales"}) is MXFP4
    assert find_form("a", {"a_blocks"}) is None
    assert find_form("a.weight", {"a.weight"}) is None


def store_as_fp8(folder: Path) -> dict[str, torch.Tensor]:
    """Rewrite a folder's matrices as FP8 blocks; return what they decode to."""
    file = folder / "model.safetensors"
    stored: dict[str, torch.Tensor] = {}
    decoded: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(file).items():
        if "proj" not in name:
            stored[name] = decoded[name] = tensor
            continue
        rows, columns = tensor.shape
        stored[name] = (tensor * 16).to(torch.float8_e4m3fn)
        scales = torch.full((-(-rows // 128), -(-columns // 128)), 1 / 16)
        stored[f"{name}_scale_inv"] = scales
        decoded[name] = dequantise_fp8_blocks(stored[name], scales, torch.float32)
    save_file(stored, file)
    return decoded


def test_packed_weights_load_like_the_numbers_they_stand_for(tmp_path: Path) -> None:
    spec = ModelShape(dim=160, num_layers=2, ffn_dim=192, tie_embeddings=False).build(40)
    packed, plain = tmp_path / "packed", tmp_path / "plain"
    save_model(Decoder(spec, seed=3), packed)
    save_model(Decoder(spec, seed=3), plain)
    decoded = store_as_fp8(packed)
    save_file(decoded, plain / "model.safetensors")
    model = load_model(packed)
    assert model.dtype == torch.float32
    assert_same(model, load_model(plain))


def test_a_packed_tensor_that_lacks_its_scales_is_named(tmp_path: Path) -> None:
    save_model(build(tie=False), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.0.mlp.down_proj.weight"
    tensors[f"{name.removesuffix('.weight')}.qweight"] = tensors.pop(name)
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"lacks tensor 'model\.layers\.0\.mlp\.down_proj"):
        load_model(tmp_path)


def test_another_packing_is_refused_by_its_name(tmp_path: Path) -> None:
    save_model(build(), tmp_path)
    config = tmp_path / "config.json"
    text = config.read_text().rstrip().removesuffix("}")
    config.write_text(text + ', "quantization_config": {"quant_method": "awq"}}')
    with pytest.raises(CheckpointError, match=r"packed by 'awq'\n.*FP8 in blocks or MXFP4"):
        load_model(tmp_path)
