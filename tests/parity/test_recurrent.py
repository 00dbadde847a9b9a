"""What the families with recurrent layers promise beyond the common checks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.parity import harness
from tests.parity.cases.recurrent import CASES, KIMI, QWEN, QWEN_MOE, RWKV
from tests.parity.harness import Case
from weft.checkpoint.hf import load_model
from weft.checkpoint.safetensors import TensorFiles
from weft.core.files import read_json, write_json
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.models import heads
from weft.nn.context import StepContext
from weft.spec import SamplingParams

pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

# transformers cannot generate with a state of another width, and trains with other weights than
# it evaluates with when it rescales; logits can be compared all the same.
# Halving the residual stream counts the eps of the norms behind it four times.
RWKV_LOGITS = {
    "wide": Case("Rwkv", {**RWKV, "attention_hidden_size": 64}),
    "rescaled": Case("Rwkv", {**RWKV, "rescale_every": 2}, atol=3e-4),
}


@pytest.mark.parametrize("name", RWKV_LOGITS)
def test_rwkv_logits(name: str, tmp_path: Path):
    case = RWKV_LOGITS[name]
    theirs = harness.reference(case)
    harness.check_logits(case, theirs, harness.load_ours(theirs, tmp_path))


@pytest.mark.parametrize("name", ["qwen3-next-dense", "qwen3.5", "kimi-linear", "mamba2", "rwkv"])
def test_logits_of_many_chunks(name: str, tmp_path: Path):
    """Longer than several chunks of either side, whose borders lie apart."""
    theirs = harness.reference(CASES[name])
    ours = harness.load_ours(theirs, tmp_path)
    tokens_T = harness.tokens_of(9, 203)
    with torch.inference_mode():
        expected = theirs(tokens_T[None], use_cache=False).logits[0]
        actual = heads.logits(ours, ours(tokens_T, StepContext.packed([203])))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["qwen3-next", "qwen3.5", "kimi-linear", "mamba2", "rwkv", "lfm2"])
def test_greedy_tokens_survive_preemption_in_mixed_chunks(name: str, tmp_path: Path):
    theirs = harness.reference(CASES[name])
    ours = harness.load_ours(theirs, tmp_path)
    prompts = [harness.tokens_of(seed, 6 + seed).tolist() for seed in range(4)]
    expected = []
    for prompt in prompts:
        ids = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=10, do_sample=False, eos_token_id=None,
            pad_token_id=0, bos_token_id=None,
        )  # fmt: skip
        expected.append(ids[0, len(prompt) :].tolist())
    config = EngineConfig(num_blocks=8, block_size=4, max_tokens_per_step=5, max_num_sequences=3)
    llm = LLM(ours, None, config)
    sampling = SamplingParams(temperature=0.0, max_tokens=10, ignore_eos=True)
    completions = llm.generate(prompts, sampling)
    assert [list(completion.tokens) for completion in completions] == expected
    assert llm.stats().scheduler.counters.num_preemptions > 0


@pytest.mark.parametrize(
    ("model_type", "name", "config"),
    [("qwen3_5", "Qwen3_5", QWEN), ("qwen3_5_moe", "Qwen3_5Moe", QWEN_MOE)],
)
def test_the_text_part_of_a_model_that_sees_is_loaded(model_type, name, config, tmp_path: Path):
    """Published Qwen3.5 files nest the text model's fields and name its tensors accordingly."""
    case = Case(name, config, config_class=f"{name}TextConfig")
    theirs = harness.reference(case)
    theirs.save_pretrained(tmp_path)
    text = read_json(tmp_path / "config.json")
    write_json(
        tmp_path / "config.json",
        {"model_type": model_type, "text_config": text, "vision_config": {"depth": 1}},
    )
    files = TensorFiles(tmp_path)
    tensors = {
        name.replace("model.", "model.language_model."): files.read(name) for name in files.names
    }
    tensors["model.visual.patch_embed.weight"] = torch.zeros(3)
    save_file(tensors, tmp_path / "model.safetensors")
    harness.check_logits(case, theirs, load_model(tmp_path, dtype=torch.float32))


def test_kimi_linear_reads_the_published_fields_and_names(tmp_path: Path):
    case = Case("KimiLinear", KIMI)
    theirs = harness.reference(case)
    ours = harness.load_ours(theirs, tmp_path)
    config = read_json(tmp_path / "config.json")
    published = {
        **{name: value for name, value in config.items() if not name.startswith("linear_")},
        "linear_attn_config": {
            "num_heads": 4,
            "head_dim": 12,
            "short_conv_kernel_size": 4,
            "kda_layers": [1, 2, 3],
            "full_attn_layers": [4],
        },
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "mla_use_nope": True,
        "rope_scaling": None,
    }
    del published["layer_types"], published["mlp_layer_types"]
    write_json(tmp_path / "config.json", published)
    files = TensorFiles(tmp_path)
    tensors = {
        name.replace("block_sparse_moe.gate_proj", "mlp.gate_proj")
        .replace("block_sparse_moe.up_proj", "mlp.up_proj")
        .replace("block_sparse_moe.down_proj", "mlp.down_proj"): files.read(name)
        for name in files.names
    }
    save_file(tensors, tmp_path / "model.safetensors")
    again = load_model(tmp_path, dtype=torch.float32)
    assert again.spec == ours.spec
    for name, tensor in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
