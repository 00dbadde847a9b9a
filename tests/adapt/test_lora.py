from __future__ import annotations

import copy

import pytest
import torch

from weft.adapt.lora import LoRAConfig, adapter_parameters, inject, merge, remove
from weft.core.errors import ConfigError
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.spec import LayerSpec, MLASpec, MLPSpec, ModelShape, ModelSpec

TOKENS = torch.arange(12)


def build() -> Decoder:
    return Decoder(ModelShape(dim=32, num_layers=2).build(40), seed=1)


def output(model: Decoder) -> torch.Tensor:
    return model(TOKENS, StepContext.packed([12]))


def train_a_little(model: Decoder) -> None:
    optimizer = torch.optim.SGD([p for _, p in adapter_parameters(model)], lr=0.5)
    for _ in range(3):
        output(model).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_nothing_changes_at_first_and_only_pairs_learn() -> None:
    model, plain = build(), build()
    names = inject(model, LoRAConfig(rank=4))
    assert len(names) == 8
    torch.testing.assert_close(output(model), output(plain), atol=0, rtol=0)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not n.endswith(("_a", "_b"))}
    train_a_little(model)
    assert not torch.allclose(output(model), output(plain))
    assert all(torch.equal(model.get_parameter(n), p) for n, p in frozen.items())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == sum(p.numel() for _, p in adapter_parameters(model))


def test_merged_equals_unmerged() -> None:
    model = build()
    inject(model, LoRAConfig())
    train_a_little(model)
    expected = output(model)
    merge(model)
    assert not list(adapter_parameters(model))
    torch.testing.assert_close(output(model), expected, atol=1e-5, rtol=1e-5)


def test_removed_is_the_old_model() -> None:
    model = build()
    inject(model, LoRAConfig())
    train_a_little(model)
    remove(model)
    torch.testing.assert_close(output(model), output(build()), atol=0, rtol=0)


def test_dropout_acts_only_in_training() -> None:
    model = build()
    inject(model, LoRAConfig(dropout=0.5))
    train_a_little(model)
    model.eval()
    again = copy.deepcopy(model)
    torch.testing.assert_close(output(model), output(again), atol=0, rtol=0)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="use patterns for names such as"):
        inject(build(), LoRAConfig(targets=("*.q_proj",)))
    with pytest.raises(ConfigError, match="rank is 0"):
        LoRAConfig(rank=0)


def test_map_from_latents_to_keys_and_values_can_be_adapted() -> None:
    """Latent attention multiplies by this weight itself instead of calling the layer."""
    mixer = MLASpec(2, 16, 8, 4, 8)
    model = Decoder(ModelSpec("latent", 40, 32, (LayerSpec(mixer, MLPSpec(48)),)), seed=1)
    before = output(model)
    assert inject(model, LoRAConfig(rank=2, targets=("*.mixer.kv_up",))) == ["layers.0.mixer.kv_up"]
    torch.testing.assert_close(output(model), before, atol=0, rtol=0)
    train_a_little(model)
    adapted = output(model)
    assert not torch.allclose(adapted, before)
    merge(model)
    torch.testing.assert_close(output(model), adapted, atol=1e-5, rtol=1e-5)
