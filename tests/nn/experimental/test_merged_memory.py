"""Dynamic memory compression against the list of slots that inference keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from weft.nn.experimental.merged_memory import attend_merged, merge_decisions, merge_tokens
from weft.ops import ScoreRule, packed_attention

TOKENS, HEADS, WIDTH, SCALE = 17, 3, 6, 0.4


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def inputs() -> list[Tensor]:
    """Return queries, keys, values and importances."""
    rows = [draw(TOKENS, HEADS, WIDTH, seed=seed) for seed in range(3)]
    return [*rows, draw(TOKENS, HEADS, seed=3).sigmoid()]


def attend(alpha_TN: Tensor) -> Tensor:
    q, k, v, omega = inputs()
    return attend_merged(q, merge_tokens(k, v, alpha_TN, omega), SCALE)


def by_slots(is_merged_TN: Tensor) -> Tensor:
    """What a cache does: append a slot, or average into the last one; attend to all slots."""
    q, k, v, omega = inputs()
    outputs = torch.empty(TOKENS, HEADS, WIDTH, dtype=torch.float64)
    for n in range(HEADS):
        slots: list[list[Tensor]] = []
        for t in range(TOKENS):
            key, value, weight = k[t, n], v[t, n], omega[t, n]
            if is_merged_TN[t, n] and slots:
                old_key, old_value, old_weight = slots.pop()
                total = old_weight + weight
                key = (old_key * old_weight + key * weight) / total
                value = (old_value * old_weight + value * weight) / total
                weight = total
            slots.append([key, value, weight])
            keys, values = (torch.stack([slot[part] for slot in slots]) for part in (0, 1))
            outputs[t, n] = (keys @ q[t, n] * SCALE).softmax(0) @ values
    return outputs


def test_without_merges_it_is_attention() -> None:
    q, k, v, _ = inputs()
    expected = packed_attention(q, k, v, (TOKENS,), ScoreRule(SCALE))
    torch.testing.assert_close(attend(torch.zeros(TOKENS, HEADS, dtype=torch.float64)), expected)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 1.0])
def test_decisions_of_zero_and_one_are_what_a_cache_of_slots_does(share: float) -> None:
    chosen = draw(TOKENS, HEADS, seed=8).argsort(0).argsort(0) < share * TOKENS
    torch.testing.assert_close(attend(chosen.double()), by_slots(chosen))


def test_a_single_slot_is_the_average_by_importance() -> None:
    _, k, v, omega = inputs()
    merged = merge_tokens(k, v, torch.ones(TOKENS, HEADS, dtype=torch.float64), omega)
    shares = omega / omega.sum(0)
    torch.testing.assert_close(merged.values_TNH[-1], (shares[..., None] * v).sum(0))
    torch.testing.assert_close(merged.keys_TNH[-1], (shares[..., None] * k).sum(0))


def test_a_fresh_model_merges_next_to_nothing_and_learns_to() -> None:
    q, k, v, _ = inputs()
    k.requires_grad_()
    alpha, omega, q_rest, k_rest = merge_decisions(q, k)
    assert alpha.max() < 0.1
    assert torch.equal(q_rest[..., 1:], q[..., 1:])
    assert q_rest[..., 0].abs().max() == k_rest[..., 0].abs().max() == 0
    out = attend_merged(q_rest, merge_tokens(k_rest, v, alpha, omega), SCALE)
    plain = packed_attention(q_rest, k_rest, v, (TOKENS,), ScoreRule(SCALE))
    assert 0 < (out - plain).abs().max() < 0.2
    (gradient,) = torch.autograd.grad(out.square().sum(), k)
    assert gradient[1:, :, 0].abs().min() > 0, "decisions get gradients"


def test_gradients_are_those_of_finite_differences() -> None:
    q, k, v, omega = (x[:5, :1].clone().requires_grad_() for x in inputs())
    alpha = torch.full((5, 1), 0.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda q, k, v, a, w: attend_merged(q, merge_tokens(k, v, a, w), SCALE),
        [q, k, v, alpha, omega],
        fast_mode=True,
    )
