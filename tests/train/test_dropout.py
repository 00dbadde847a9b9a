from __future__ import annotations

import pytest
import torch

from tests.models.tiny import tiny_encoder_decoder
from tests.train.helpers import tiny_model
from weft.core.errors import ConfigError
from weft.nn.context import StepContext
from weft.train.dropout import dropout


def decode(model) -> torch.Tensor:
    return model(torch.arange(6), StepContext.packed([4, 2]))


def translate(model) -> torch.Tensor:
    return model(torch.arange(6), [4, 2], torch.arange(5), [2, 3])


@pytest.mark.parametrize(
    ("model", "run"), [(tiny_model(), decode), (tiny_encoder_decoder(), translate)]
)
def test_dropout_acts_in_training_only_and_goes_away(model, run):
    plain = run(model.eval())
    with dropout(model, 0.3):
        assert torch.equal(run(model.eval()), plain)
        torch.manual_seed(0)
        first = run(model.train())
        second = run(model)
        torch.manual_seed(0)
        assert torch.equal(run(model), first), "a function of the random state"
    assert not torch.equal(first, plain)
    assert not torch.equal(first, second)
    assert torch.equal(run(model), plain), "hooks are removed"


def test_each_branch_and_embedding_is_dropped_at_the_rate():
    model, rate = tiny_encoder_decoder().train(), 0.25
    seen: list[torch.Tensor] = []
    block = model.decoder.layers[0]
    torch.manual_seed(0)
    with dropout(model, rate):
        handles = [
            part.register_forward_hook(lambda m, a, out: seen.append(out))
            for part in (block.mixer, block.cross, block.ffn)
        ]
        handles.append(block.register_forward_pre_hook(lambda m, a: seen.append(a[0])))
        for _ in range(20):
            translate(model)
        for handle in handles:
            handle.remove()
    assert len(seen) == 80
    for part in range(4):
        share = float((torch.stack(seen[part::4]) == 0).float().mean())
        assert abs(share - rate) < 0.03


def test_rate_zero_adds_no_hook():
    model = tiny_model()
    with dropout(model, 0.0):
        assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_rates_are_refused(rate: float):
    with pytest.raises(ConfigError, match="dropout"), dropout(tiny_model(), rate):
        pass
