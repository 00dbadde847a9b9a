import torch

from weft.ops import swiglu


def test_extreme_gates_neither_overflow_nor_lose_precision():
    gate = torch.tensor([-1e30, -200.0, -104.0, -88.0, -20.0, -1e-8, 0.0, 1e-8, 20.0, 88.0, 1e30])
    out = swiglu(torch.cat((gate, torch.ones_like(gate)), -1).unsqueeze(0))[0]
    wide = gate.double()
    expected = (wide / (1 + (-wide).exp())).float()
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-37)


def test_activation_is_exact_to_float32_over_its_whole_range():
    gate = torch.linspace(-87, 87, 20_000)
    out = swiglu(torch.cat((gate, torch.ones_like(gate))).unsqueeze(0))[0]
    wide = gate.double()
    torch.testing.assert_close(out, (wide * wide.sigmoid()).float(), rtol=1e-6, atol=0)


def test_nan_and_infinity_pass_through():
    x = torch.tensor([[float("nan"), 1.0, float("inf"), 2.0, float("nan"), 3.0]])
    out = swiglu(x)[0]
    assert out[0].isnan()
    assert out[1].isnan()
    assert out[2] == float("inf")


def test_leading_axes_are_kept():
    assert swiglu(torch.randn(2, 3, 8)).shape == (2, 3, 4)
    assert swiglu(torch.randn(0, 8)).shape == (0, 4)
