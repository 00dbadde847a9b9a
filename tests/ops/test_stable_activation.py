"""Gates have the same bits wherever a token stands, and are what they are called."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from weft.ops.activation.gated import clamped_swiglu
from weft.ops.activation.stable import stable_sigmoid, stable_softplus, stable_tanh


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(stable_sigmoid, torch.sigmoid), (stable_softplus, F.softplus), (stable_tanh, torch.tanh)],
)
def test_values_and_gradients_are_those_of_the_plain_function(ours, theirs):
    x = torch.linspace(-30, 30, 501, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x, threshold=700) if ours is stable_softplus
                               else theirs(x), rtol=1e-12, atol=1e-15)  # fmt: skip
    assert torch.autograd.gradcheck(ours, x, fast_mode=True)
    extreme = torch.tensor([-1e4, -100.0, 100.0, 1e4])
    torch.testing.assert_close(ours(extreme), theirs(extreme))


@pytest.mark.parametrize("function", [stable_sigmoid, stable_softplus, stable_tanh])
@pytest.mark.parametrize("width", [1, 3, 8, 60])
def test_bits_do_not_depend_on_the_other_rows(function, width):
    torch.manual_seed(0)
    x = torch.randn(301, width)
    many = function(x)
    for start, count in ((0, 1), (5, 2), (7, 33), (200, 101)):
        assert torch.equal(function(x[start : start + count]), many[start : start + count])


def test_small_numbers_keep_their_digits():
    x = torch.logspace(-6, 0, 50)
    torch.testing.assert_close(stable_tanh(x), torch.tanh(x), rtol=1e-6, atol=0)


def test_clamped_swiglu_is_its_formula():
    torch.manual_seed(0)
    gate = (torch.randn(40, 6, dtype=torch.float64) * 8).requires_grad_()
    up = (torch.randn(40, 6, dtype=torch.float64) * 8).requires_grad_()
    g, u = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
    torch.testing.assert_close(clamped_swiglu(gate, up), g * torch.sigmoid(1.702 * g) * (u + 1))
    assert float(clamped_swiglu(gate, up).detach().abs().max()) <= 7 * 8
    assert torch.autograd.gradcheck(clamped_swiglu, (gate, up), fast_mode=True)
