"""Adapters of Hugging Face PEFT: its folders read here, ours read by it, same logits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.cases.dense import GEMMA, GPT2, NO_DROPOUT, SIZES
from tests.parity.cases.latent import CASES as LATENT_CASES
from tests.parity.harness import Case, load_ours, reference, tokens_of
from torch import nn

from weft.adapt import lora
from weft.adapt.lora import LoRAConfig
from weft.adapt.peft import load_peft, save_peft
from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.context import StepContext

pytestmark = pytest.mark.parity

LAYERS = "(q|k|v|o|gate|up|down)_proj"
CASES: dict[str, tuple[Case, str]] = {
    "llama": (Case("Llama", SIZES), rf".*\.{LAYERS}"),
    "llama-queries": (Case("Llama", SIZES), r".*\.(q_proj|up_proj)"),
    "qwen2-bias": (Case("Qwen2", SIZES), rf".*\.{LAYERS}"),
    "gemma2": (Case("Gemma2", {**GEMMA, "sliding_window": 5}), rf".*\.{LAYERS}"),
    "phi3-fused": (
        Case("Phi3", {**SIZES, "pad_token_id": 0}),
        r".*\.(qkv_proj|o_proj|gate_up_proj|down_proj)",
    ),
    "gpt2-transposed": (
        Case("GPT2", {**GPT2, **NO_DROPOUT}, model="GPT2LMHeadModel"),
        r".*\.(c_attn|c_proj|c_fc)",
    ),
    "mixtral-attention": (
        Case("Mixtral", {**SIZES, "num_local_experts": 4}),
        r".*self_attn\.[qkvo]_proj",
    ),
    "deepseek-latent": (
        LATENT_CASES["deepseek-v3"] if "deepseek-v3" in LATENT_CASES else Case("DeepseekV3"),
        r".*self_attn\.(q_a_proj|q_b_proj|kv_a_proj_with_mqa|kv_b_proj|o_proj)",
    ),
}


def peft_model(theirs: nn.Module, targets: str, **options: Any) -> nn.Module:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        **{"r": 4, "lora_alpha": 10, "target_modules": targets, "task_type": "CAUSAL_LM"} | options
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as the reminder that Conv1D is transposed
        adapted = peft.get_peft_model(theirs, config)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn_like(parameter)
    return adapted.eval()


def their_logits(theirs: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return theirs(tokens_of(1, 31)[None], use_cache=False).logits[0]


def our_logits(ours: Decoder) -> torch.Tensor:
    context = StepContext.packed([31], keep_keys=ours.spec.kv_sources)
    with torch.inference_mode():
        return heads.logits(ours, ours(tokens_of(1, 31), context))


def save(adapted: nn.Module, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as a base without a folder
        adapted.save_pretrained(folder)


def read_by_peft(theirs: nn.Module, folder: Path) -> nn.Module:
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers about what peft still calls
        return peft.PeftModel.from_pretrained(theirs, folder).eval()


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_of_peft_gives_its_logits_here_and_back(name: str, tmp_path: Path) -> None:
    case, targets = CASES[name]
    theirs = reference(case)
    ours = load_ours(theirs, tmp_path / "base")
    plain = our_logits(ours)
    adapted = peft_model(theirs, targets)
    expected = their_logits(adapted)
    save(adapted, tmp_path / "adapter")
    adapter = load_peft(tmp_path / "adapter", ours)
    lora.attach(ours, adapter)
    assert not torch.allclose(our_logits(ours), plain, atol=1e-3)
    torch.testing.assert_close(our_logits(ours), expected, atol=3e-5, rtol=1e-4)
    # What was one block per part of a merged layer comes back as the same pairs.
    save_peft(lora.adapter_of(ours), tmp_path / "again", ours, base=tmp_path / "base")
    again = read_by_peft(reference(case), tmp_path / "again")
    torch.testing.assert_close(their_logits(again), expected, atol=1e-5, rtol=1e-5)
    config = again.peft_config["default"]
    assert (config.r, config.lora_alpha, config.rank_pattern) == (4, 10, {})


@pytest.mark.parametrize("stabilized", [False, True])
def test_an_adapter_trained_here_gives_our_logits_in_peft(stabilized: bool, tmp_path: Path) -> None:
    case = Case("Llama", SIZES)
    theirs = reference(case)
    ours = load_ours(theirs, tmp_path / "base")
    lora.inject(ours, LoRAConfig(rank=4, alpha=8, rank_stabilized=stabilized))
    torch.manual_seed(1)
    for _, parameter in lora.adapter_parameters(ours):
        parameter.data = 0.3 * torch.randn_like(parameter)
    save_peft(lora.adapter_of(ours), tmp_path / "adapter", ours)
    adapted = read_by_peft(theirs, tmp_path / "adapter")
    torch.testing.assert_close(our_logits(ours), their_logits(adapted), atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 3}, "alpha_pattern": {"v_proj": 3}},
        {"init_lora_weights": "gaussian", "layers_to_transform": [0, 2]},
    ],
    ids=["rslora", "patterns", "some-layers"],
)
def test_options_of_peft_keep_their_meaning(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = reference(Case("Llama", SIZES))
    ours = load_ours(theirs, tmp_path / "base")
    targets = ["q_proj", "k_proj", "v_proj", "up_proj"]
    adapted = peft_model(theirs, targets, **options)
    expected = their_logits(adapted)
    save(adapted, tmp_path / "adapter")
    lora.attach(ours, load_peft(tmp_path / "adapter", ours))
    torch.testing.assert_close(our_logits(ours), expected, atol=3e-5, rtol=1e-4)
    save_peft(lora.adapter_of(ours), tmp_path / "again", ours)
    again = read_by_peft(reference(Case("Llama", SIZES)), tmp_path / "again")
    torch.testing.assert_close(their_logits(again), expected, atol=1e-5, rtol=1e-5)


def test_dora_of_peft_is_refused(tmp_path: Path) -> None:
    from weft.core.errors import UnsupportedError

    theirs = reference(Case("Llama", SIZES))
    ours = load_ours(theirs, tmp_path / "base")
    save(peft_model(theirs, r".*\.q_proj", use_dora=True), tmp_path / "adapter")
    with pytest.raises(UnsupportedError, match="use_dora"):
        load_peft(tmp_path / "adapter", ours)
