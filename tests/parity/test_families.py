"""Every family against transformers: both directions, logits, gradients, greedy tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from weft.checkpoint.hf import hf_tensors, load_hf_tensors, load_model, save_model
from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.context import StepContext

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-bias": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-mqa": ("Llama", {"num_key_value_heads": 1}),
    "llama-rope3": ("Llama", {"rope_parameters": LLAMA3_ROPE}),
    "qwen3": ("Qwen3", {"head_dim": 24}),
    "qwen3-tied": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
}


def reference(name: str) -> torch.nn.Module:
    family, extra = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **extra})
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for parameter in model.parameters():  # norms and biases start as ones and zeros
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model


@pytest.fixture(params=sorted(MODELS))
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[torch.nn.Module, Decoder]:
    theirs = reference(request.param)
    theirs.save_pretrained(tmp_path)
    return theirs, load_model(tmp_path, dtype=torch.float32)


def test_logits(pair: tuple[torch.nn.Module, Decoder]) -> None:
    theirs, ours = pair
    tokens = torch.randint(97, (31,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs(tokens[None]).logits[0]
        actual = heads.logits(ours, ours(tokens, StepContext.packed([31])))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_gradients(pair: tuple[torch.nn.Module, Decoder]) -> None:
    theirs, ours = pair
    tokens = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(2))
    theirs(tokens, labels=tokens).loss.backward()
    labels = torch.cat([tokens[:, 1:], torch.full((2, 1), -100)], 1).flatten()
    hidden = ours(tokens.flatten(), StepContext.packed([12, 12]))
    loss, count = heads.cross_entropy_sum(ours, hidden, labels)
    (loss / count).backward()
    holder = Decoder(ours.spec, seed=0)
    for parameter, trained in zip(holder.parameters(), ours.parameters(), strict=True):
        parameter.data.copy_(trained.grad)
    for name, gradient in hf_tensors(holder).items():
        expected = theirs.get_parameter(name).grad
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4, msg=name)


def test_the_way_back(pair: tuple[torch.nn.Module, Decoder], tmp_path: Path) -> None:
    theirs, ours = pair
    save_model(ours, tmp_path / "back")
    again = type(theirs).from_pretrained(tmp_path / "back").eval()
    tokens = torch.arange(20)[None]
    with torch.inference_mode():
        assert torch.equal(again(tokens).logits, theirs(tokens).logits)


def test_state_dict_names_are_theirs(pair: tuple[torch.nn.Module, Decoder]) -> None:
    theirs, ours = pair
    expected = {name for name, _ in theirs.named_parameters()}
    assert set(hf_tensors(ours)) == expected
    fresh = Decoder(ours.spec, seed=11)
    load_hf_tensors(fresh, {n: p.detach() for n, p in theirs.named_parameters()})
    assert torch.equal(fresh.embed.weight, ours.embed.weight)
