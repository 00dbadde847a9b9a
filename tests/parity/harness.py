"""What every family is held to: a tiny random Hugging Face model, both directions."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.nn.paged import assert_packed_equals_paged
from weft.checkpoint.hf import hf_tensors, load_model, save_model
from weft.checkpoint.safetensors import TensorFiles
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.models import heads
from weft.models.decoder import Decoder
from weft.models.families import key_map
from weft.nn.context import StepContext
from weft.spec import SamplingParams

VOCAB_SIZE = 97


@dataclass(frozen=True)
class Case:
    """A tiny model of theirs.

    Attributes:
        name: Class name without "Config" and "ForCausalLM", such as "Llama".
        config: Arguments of the configuration.
        sample: Whether the default tier runs it too.
        atol: Of the logits.
        model: Class of the model; none means ``{name}ForCausalLM``.
        config_class: Class of the configuration; none means ``{name}Config``.
        frozen: Parameters of theirs that ours does not train.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    sample: bool = False
    atol: float = 1e-5
    model: str | None = None
    config_class: str | None = None
    frozen: tuple[str, ...] = ()


def reference(case: Case) -> nn.Module:
    """Return their model in float32, with norms and biases moved off their starting values."""
    import transformers

    config_class = getattr(transformers, case.config_class or f"{case.name}Config")
    torch.manual_seed(0)
    config = config_class(**{"vocab_size": VOCAB_SIZE, **case.config})
    config._attn_implementation = "eager"
    model = getattr(transformers, case.model or f"{case.name}ForCausalLM")(config).eval()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point() and tensor.requires_grad:
            tensor.data += 0.02 * torch.randn_like(tensor)
    return model.float()


def tokens_of(seed: int, num_tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB_SIZE, (num_tokens,), generator=generator)


def load_ours(theirs: nn.Module, folder: Path) -> Decoder:
    theirs.save_pretrained(folder)
    return load_model(folder, dtype=torch.float32)


def check_logits(case: Case, theirs: nn.Module, ours: Decoder) -> None:
    tokens_T = tokens_of(1, 31)
    context = StepContext.packed([31], keep_keys=ours.spec.kv_sources)
    with torch.inference_mode():
        expected = theirs(tokens_T[None], use_cache=False).logits[0]
        actual = heads.logits(ours, ours(tokens_T, context))
    torch.testing.assert_close(actual, expected, atol=case.atol, rtol=1e-5)


def check_gradients(case: Case, theirs: nn.Module, ours: Decoder, folder: Path) -> None:
    """Compare gradients name by name, in the layout of their files."""
    tokens_BT = tokens_of(2, 24).view(2, 12)
    theirs.zero_grad()
    theirs(tokens_BT, labels=tokens_BT, use_cache=False).loss.backward()
    labels_T = torch.cat([tokens_BT[:, 1:], torch.full((2, 1), -100)], 1).flatten()
    context = StepContext.packed([12, 12], keep_keys=ours.spec.kv_sources)
    loss, count = heads.cross_entropy_sum(ours, ours(tokens_BT.flatten(), context), labels_T)
    (loss / count).backward()
    expected = gradients_as_files(theirs, folder, key_map(ours.spec).aliases)
    holder = copy.deepcopy(ours)
    for name, tensor in holder.state_dict().items():
        parameter = dict(ours.named_parameters()).get(name)
        gradient = None if parameter is None else parameter.grad
        tensor.copy_(torch.zeros_like(tensor) if gradient is None else gradient)
    compared = 0
    for name, gradient in hf_tensors(holder).items():
        if any(part in name for part in case.frozen):
            continue
        torch.testing.assert_close(gradient, expected.read(name), atol=2e-6, rtol=2e-4, msg=name)
        compared += bool(gradient.abs().max() > 0)
    assert compared > 3


def gradients_as_files(
    model: nn.Module, folder: Path, aliases: Sequence[tuple[str, str]]
) -> TensorFiles:
    """Save their gradients as if they were weights, so that they get their file names."""
    holder = copy.deepcopy(model)
    gradients = dict(model.named_parameters())
    for name, parameter in holder.named_parameters():
        gradient = gradients[name].grad
        parameter.data.copy_(torch.zeros_like(parameter) if gradient is None else gradient)
    for buffer in holder.buffers():
        buffer.zero_()
    holder.save_pretrained(folder)
    return TensorFiles(folder, aliases)


def check_way_back(theirs: nn.Module, ours: Decoder, folder: Path) -> None:
    """What we save, transformers loads unchanged."""
    save_model(ours, folder)
    again, report = type(theirs).from_pretrained(folder, output_loading_info=True)
    again.config._attn_implementation = "eager"
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    expected = {**dict(theirs.named_parameters()), **dict(theirs.named_buffers())}
    actual = {**dict(again.named_parameters()), **dict(again.named_buffers())}
    assert set(actual) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


def check_paged(case: Case, ours: Decoder) -> None:
    assert_packed_equals_paged(ours, vocab_size=VOCAB_SIZE, atol=case.atol)


def check_greedy(theirs: nn.Module, ours: Decoder) -> None:
    """Greedy tokens of the engine, batched and chunked, are those of ``generate``."""
    prompts = [tokens_of(seed, length).tolist() for seed, length in ((3, 9), (4, 14), (5, 3))]
    expected = []
    for prompt in prompts:
        ids = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=None,
            pad_token_id=0, bos_token_id=None,
        )  # fmt: skip
        expected.append(ids[0, len(prompt) :].tolist())
    config = EngineConfig(num_blocks=64, block_size=4, max_tokens_per_step=8, max_num_sequences=4)
    sampling = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    completions = LLM(ours, None, config).generate(prompts, sampling)
    assert [list(completion.tokens) for completion in completions] == expected
