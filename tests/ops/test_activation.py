"""Every activation against its written formula, torch and finite differences (row F06)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from weft.ops.activation import reference
from weft.ops.activation.functions import ACTIVATIONS, prelu
from weft.ops.activation.gated import gated_unit, situ_glu

GRID = torch.linspace(-6.0, 6.0, 241, dtype=torch.float64)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_function_is_its_formula(name: str) -> None:
    expected = getattr(reference, name)(GRID)
    torch.testing.assert_close(ACTIVATIONS[name](GRID), expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_gradients(name: str) -> None:
    # Away from 0, where the kinked ones have no derivative.
    x = torch.tensor([-3.1, -1.2, -0.4, 0.3, 0.9, 2.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ACTIVATIONS[name], (x,))


def test_prelu_is_torch() -> None:
    slope = torch.tensor([0.25], dtype=torch.float64)
    assert torch.equal(prelu(GRID, slope), F.prelu(GRID, slope))


def test_selu_constants() -> None:
    assert round(reference.SELU_SCALE, 4) == 1.0507
    assert round(reference.SELU_ALPHA, 4) == 1.6733


def test_glu_is_a_linear_side_times_a_sigmoid_side() -> None:
    up, gate = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    expected = F.glu(torch.cat([up, gate], -1))
    torch.testing.assert_close(gated_unit(gate, up, "sigmoid"), expected)
    torch.testing.assert_close(gated_unit(gate, up, "silu"), F.silu(gate) * up)


def test_situ_glu_is_its_formula_and_bounded() -> None:
    torch.manual_seed(0)
    gate, up = 30 * torch.randn(2, 7, 40, dtype=torch.float64)
    expected = 4 * torch.tanh(gate / 4) * torch.sigmoid(gate) * 25 * torch.tanh(up / 25)
    torch.testing.assert_close(gated_unit(gate, up, "situ"), expected)
    assert float(situ_glu(100 * gate, 100 * up).abs().max()) == 100.0
    torch.testing.assert_close(
        situ_glu(gate / 1e5, up / 1e5), F.silu(gate / 1e5) * up / 1e5, atol=0, rtol=1e-6
    )
    assert situ_glu(gate.bfloat16(), up.bfloat16()).dtype == torch.bfloat16
    sides = [side[:, :5].clone().requires_grad_() for side in (gate, up)]
    assert torch.autograd.gradcheck(situ_glu, sides)
