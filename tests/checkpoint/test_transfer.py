"""Bytes go straight to their places: whatever the type, the cut, the order of the files."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.checkpoint.test_hf import assert_same, build
from weft.checkpoint import transfer
from weft.checkpoint.hf import hf_tensors, load_into, load_model, save_model
from weft.checkpoint.memory import HUGE_PAGE_TENSOR_BYTES, materialise
from weft.checkpoint.safetensors import TensorFiles, as_bytes, read_header
from weft.checkpoint.sources import FolderSource, RandomSource, WeightSource, build_model
from weft.core.errors import CheckpointError
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.spec import (
    AttentionSpec,
    LayerSpec,
    MLPSpec,
    ModelShape,
    ModelSpec,
    MoESpec,
    RotarySpec,
    RouterSpec,
)


@pytest.mark.parametrize("chunk_bytes", [1, 1000, 2**25])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float16])
def test_any_type_and_cut_gives_the_same_numbers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chunk_bytes: int,
    stored: torch.dtype,
    wanted: torch.dtype,
) -> None:
    monkeypatch.setattr(transfer, "CHUNK_BYTES", chunk_bytes)
    model = build(tie=False)
    save_model(model, tmp_path, dtype=stored, max_shard_bytes=20_000)
    loaded = load_model(tmp_path, dtype=wanted)
    for (name, ours), parameter in zip(loaded.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, parameter.to(stored).to(wanted)), name


def test_the_report_says_what_was_read(tmp_path: Path) -> None:
    model = build(tie=False)
    save_model(model, tmp_path, max_shard_bytes=20_000)
    report = load_into(model, tmp_path)
    files = list(tmp_path.glob("*.safetensors"))
    assert report.num_files == len(files) > 2
    assert report.num_tensors == len(hf_tensors(model))
    assert report.size_bytes == sum(t.numel() * 4 for t in hf_tensors(model).values())
    assert report.seconds > 0


def test_a_reload_changes_the_outputs_exactly_once(tmp_path: Path) -> None:
    first, second = build(), Decoder(build().spec, seed=9)
    tokens = torch.arange(12)

    def outputs(model: Decoder) -> torch.Tensor:
        with torch.no_grad():
            return model(tokens, StepContext.packed([12]))

    save_model(first, tmp_path)
    source = FolderSource(tmp_path)
    model = build_model(source)
    addresses = [parameter.data_ptr() for parameter in model.parameters()]
    assert source.num_loads == 1
    assert torch.equal(outputs(model), outputs(first))
    save_model(second, tmp_path)
    assert torch.equal(outputs(model), outputs(first))  # the file alone changes nothing
    source.load_into(model)
    assert source.num_loads == 2
    assert torch.equal(outputs(model), outputs(second))
    source.load_into(model)
    assert torch.equal(outputs(model), outputs(second))
    assert [parameter.data_ptr() for parameter in model.parameters()] == addresses


def test_random_weights_need_no_file() -> None:
    spec = build().spec
    source: WeightSource = RandomSource(spec, seed=2)
    model = build_model(source)
    assert_same(model, Decoder(spec, seed=2))
    report = source.load_into(model)
    assert_same(model, Decoder(spec, seed=3))
    assert source.num_loads == 2
    assert report.num_files == 0
    assert build_model(RandomSource(spec), dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_reload_of_another_shape_leaves_the_model_alone(tmp_path: Path) -> None:
    save_model(Decoder(ModelShape(dim=32, num_layers=3).build(40)), tmp_path)
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"unknown tensor 'model\.layers\.2"):
        load_into(model, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_buffers_keep_their_own_type_both_ways(tmp_path: Path) -> None:
    router = RouterSpec(
        score="sigmoid", correction_bias=True, weight_scale=2.5, group_score="top2_sum"
    )
    ffn = MoESpec(8, 2, MLPSpec(32), router, shared=MLPSpec(32))
    mixer = AttentionSpec(4, 2, 16, RotarySpec(dim=8), qk_norm="head", qkv_bias=True)
    spec = ModelSpec("glm4_moe", 40, 64, (LayerSpec(mixer, ffn),) * 2)
    model = Decoder(spec)
    for _, buffer in model.named_buffers():
        buffer.copy_(torch.linspace(1, 1.001, 8))
    assert len(list(model.named_buffers())) == 2
    tensors = hf_tensors(model, dtype=torch.bfloat16)
    biases = {name: t for name, t in tensors.items() if "correction_bias" in name}
    assert {t.dtype for t in biases.values()} == {torch.float32}
    assert tensors["model.embed_tokens.weight"].dtype == torch.bfloat16
    save_model(model, tmp_path, dtype=torch.bfloat16)
    loaded = load_model(tmp_path)
    assert loaded.dtype == torch.bfloat16
    for _, buffer in loaded.named_buffers():
        assert torch.equal(buffer, torch.linspace(1, 1.001, 8))


def test_every_large_tensor_has_its_own_pages() -> None:
    spec = ModelShape(dim=256, num_layers=1, tie_embeddings=False).build(8192)
    model = Decoder(spec, device="meta", dtype=torch.bfloat16)
    materialise(model, "cpu")
    assert model.embed.weight.numel() * 2 >= HUGE_PAGE_TENSOR_BYTES
    assert isinstance(model.embed.weight, torch.nn.Parameter)
    assert model.embed.weight.requires_grad
    model.embed.weight.data.fill_(1.5)
    assert model.head is not None
    model.head.weight.data.fill_(2.5)
    assert model.embed.weight.float().mean() == 1.5
    assert model.dtype == torch.bfloat16


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    save_model(build(), tmp_path)
    files = TensorFiles(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:2000])
    last = max(files.names, key=lambda name: files.entries[name].start)
    with pytest.raises(CheckpointError, match=r"model\.safetensors ended while it was read"):
        files.read(last)


def test_bytes_of_a_tensor_are_its_memory() -> None:
    tensor = torch.zeros(2, 3, dtype=torch.bfloat16)
    as_bytes(tensor)[:2] = torch.tensor([1.0], dtype=torch.bfloat16).view(torch.uint8).numpy()
    assert tensor[0, 0] == 1.0
    assert tensor.sum() == 1.0


def test_headers_agree_with_the_library(tmp_path: Path) -> None:
    types = (torch.float64, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn)
    tensors = {f"t{i}": torch.ones(i + 1, 2).to(dtype) for i, dtype in enumerate(types)}
    save_file({**tensors, "empty": torch.zeros(0, 3)}, tmp_path / "model.safetensors")
    files = TensorFiles(tmp_path)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        read = files.read(name)
        assert read.dtype == tensor.dtype
        assert read.shape == tensor.shape
        assert torch.equal(read.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize(
    "damage",
    [b"", b"\x01", b"\xff" * 16, b"\x02\x00\x00\x00\x00\x00\x00\x00[]", b"not safetensors at all"],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, damage: bytes) -> None:
    save_model(build(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"model\.safetensors .* cannot be read"):
        load_model(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "F8_E4M3"]) | JSON,
        "shape": st.lists(st.integers(-2, 3), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-4, 40), min_size=2, max_size=2) | JSON,
    }
)


@settings(max_examples=300, deadline=None)
@given(
    header=st.dictionaries(st.text(max_size=3), FIELDS | JSON, max_size=3) | JSON, data=st.binary()
)
def test_any_header_is_read_or_refused(header: object, data: bytes) -> None:
    text = json.dumps(header).encode()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        file.write_bytes(len(text).to_bytes(8, "little") + text + data)
        try:
            entries = read_header(file)
        except CheckpointError:
            return
        files = TensorFiles(file.parent)
        for name, entry in entries.items():
            assert entry.start + entry.size_bytes <= file.stat().st_size
            assert files.read(name).shape == entry.shape


def test_an_index_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    save_model(build(), tmp_path / "a", max_shard_bytes=10_000)
    index = tmp_path / "a" / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001", "../b/model-00001"))
    with pytest.raises(CheckpointError, match="not in its folder"):
        load_model(tmp_path / "a")


def test_no_older_file_is_left_to_be_loaded_instead(tmp_path: Path) -> None:
    old, new = build(), Decoder(build().spec, seed=5)
    save_model(old, tmp_path, max_shard_bytes=10_000)
    save_model(new, tmp_path)
    assert [p.name for p in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    assert_same(load_model(tmp_path), new)
    save_model(old, tmp_path, max_shard_bytes=10_000)
    assert not (tmp_path / "model.safetensors").exists()
    assert_same(load_model(tmp_path), old)


PEAK = """
import re, sys, torch
from pathlib import Path
from weft.checkpoint.hf import load_model

def memory(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

load_model(Path(sys.argv[1]))  # torch's own code comes into memory with its first use
for dtype in (torch.bfloat16, torch.float32):
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = memory("VmRSS")
    model = load_model(Path(sys.argv[1]), dtype=dtype)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    print(memory("VmHWM") - before, size)
    del model
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_peak_memory_is_the_model_and_less_than_a_shard(tmp_path: Path) -> None:
    spec = ModelShape(dim=512, num_layers=12, tie_embeddings=False).build(32_000)
    model = Decoder(spec, device="meta", dtype=torch.bfloat16).to_empty(device="cpu")
    save_model(model, tmp_path, max_shard_bytes=40_000_000)
    shard = max(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    result = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    for line in result.stdout.splitlines():
        grown, size = map(int, line.split())
        assert size > 3 * shard
        assert size * 0.9 < grown < size + shard
