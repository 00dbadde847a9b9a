"""Discretisation, the selective scan and the convolution that a fixed system is."""

from __future__ import annotations

import pytest
import torch

from weft.ops.linear_attention import reference
from weft.ops.mamba.discretise import mamba_step, zero_order_hold
from weft.ops.mamba.selective import long_convolution, selective_scan, state_space_kernel
from weft.ops.mamba.sequences import mamba


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_zero_order_hold_is_the_exact_solution_of_a_held_input():
    """x' = a x + u with u held for dt, integrated in twenty thousand Euler steps."""
    rate = torch.tensor([-3.0, -0.5, 0.0], dtype=torch.float64)
    step = torch.tensor([0.7, 0.2, 1.5], dtype=torch.float64)
    x = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    decay, factor = zero_order_hold(rate, step)
    expected = x.clone()
    for _ in range(20_000):
        expected = expected + step / 20_000 * (rate * expected + 1.0)
    torch.testing.assert_close(decay * x + factor, expected, atol=1e-3, rtol=1e-3)


def test_mambas_factor_is_the_first_term_of_the_exact_one():
    rate = torch.tensor(-4.0, dtype=torch.float64)
    for step in (1e-1, 1e-2, 1e-3):
        dt = torch.tensor(step, dtype=torch.float64)
        decay, exact = zero_order_hold(rate, dt)
        log_decay, factor = mamba_step(rate, dt)
        torch.testing.assert_close(log_decay.exp(), decay)
        assert abs(factor - exact) <= 0.5 * 4.0 * step**2 * 1.01


@pytest.mark.parametrize("length", [1, 2, 7, 64, 100])
def test_selective_scan_equals_the_naive_loop(length):
    log_decay, inputs = -draw(length, 3, 5).exp(), draw(length, 3, 5, seed=1)
    c, initial = draw(length, 5, seed=2), draw(3, 5, seed=3)
    state, expected = initial, []
    for t in range(length):
        state = log_decay[t].exp() * state + inputs[t]
        expected.append(state @ c[t])
    outputs, last = selective_scan(log_decay, inputs, c, initial)
    torch.testing.assert_close(outputs, torch.stack(expected))
    torch.testing.assert_close(last, state)


def test_a_fixed_system_is_a_convolution():
    length, decay = 50, draw(4, 6).sigmoid()
    b, c, u = draw(4, 6, seed=1), draw(4, 6, seed=2), draw(length, 4, seed=3)
    state, expected = torch.zeros(4, 6, dtype=torch.float64), []
    for t in range(length):
        state = decay * state + b * u[t, :, None]
        expected.append((state * c).sum(-1))
    kernel = state_space_kernel(decay, b, c, length)
    torch.testing.assert_close(long_convolution(u, kernel), torch.stack(expected))


def test_mamba2_is_linear_attention_with_one_decay_per_head():
    """State-space duality: h = exp(a dt) h + dt B x, y = C h, as keys, values and queries."""
    tokens, heads, width, states = 20, 3, 4, 5
    rate, dt = -draw(heads).exp(), draw(tokens, heads, seed=1).exp()
    b, c, x = (draw(tokens, n, seed=s) for n, s in ((states, 2), (states, 3), (heads, 4)))
    x = draw(tokens, heads, width, seed=4)
    h, expected = torch.zeros(heads, width, states, dtype=torch.float64), []
    for t in range(tokens):
        h = (rate * dt[t]).exp()[:, None, None] * h
        h = h + dt[t][:, None, None] * x[t][:, :, None] * b[t]
        expected.append(h @ c[t])
    got, _ = reference.linear_attention(
        c[:, None], b[:, None], x * dt[..., None], (rate * dt)[..., None], (tokens,), None
    )
    torch.testing.assert_close(got, torch.stack(expected))


@pytest.mark.parametrize("lengths", [(1, 1, 1), (3, 70), (1, 150, 1, 2)])
@pytest.mark.parametrize("continued", [False, True])
def test_mamba_is_linear_attention_with_a_head_per_channel(lengths, continued):
    tokens, rate = sum(lengths), -draw(3, 5).exp()
    x, step, b, c = draw(tokens, 3), draw(tokens, 3, seed=1).exp(), draw(tokens, 5), draw(tokens, 5)
    initial = draw(len(lengths), 3, 5, seed=4) if continued else None
    got, last = mamba(x, step, rate, b, c, lengths, initial)
    expected, state = reference.linear_attention(
        c[:, None], b[:, None], (x * step)[..., None], step[..., None] * rate, lengths,
        None if initial is None else initial[..., None],
    )  # fmt: skip
    torch.testing.assert_close(got, expected.squeeze(-1))
    torch.testing.assert_close(last, state.squeeze(-1))


def test_gradients_of_mamba_are_those_of_finite_differences():
    leaves = [draw(7, 2), draw(7, 2).exp(), -draw(2, 3).exp(), draw(7, 3), draw(7, 3, seed=1)]
    leaves.append(draw(2, 2, 3))
    for leaf in leaves:
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *x: mamba(*x[:-1], (6, 1), x[-1]), leaves, fast_mode=True
    )
