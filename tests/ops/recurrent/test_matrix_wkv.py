"""The matrix recurrence of RWKV-5 and RWKV-6 against its equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from weft.ops.rwkv.matrix import matrix_wkv

HEADS, WIDTH = 3, 4


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def arguments(num_tokens: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return receptances, keys, values, log-decays and bonuses."""
    r, k, v, decay = (draw(num_tokens, HEADS, WIDTH, seed=s, dtype=dtype) for s in range(4))
    return [r, k, v, -(2 * decay).exp(), draw(HEADS, WIDTH, seed=5, dtype=dtype)]


def by_definition(r, k, v, log_decay, bonus, lengths, initial) -> tuple[Tensor, Tensor]:
    """Peng et al. 2024, section 4, token by token."""
    outputs, finals, start = [], [], 0
    for row, length in enumerate(lengths):
        state = torch.zeros(HEADS, WIDTH, WIDTH, dtype=r.dtype) if initial is None else initial[row]
        for t in range(start, start + length):
            written = k[t][:, :, None] * v[t][:, None, :]
            read = state + bonus[:, :, None] * written
            outputs.append((r[t][:, :, None] * read).sum(1))
            state = log_decay[t].exp()[:, :, None] * state + written
        finals.append(state)
        start += length
    return torch.stack(outputs), torch.stack(finals)


@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize("lengths", [(1, 1), (90,), (5, 1, 70, 2)])
def test_it_reads_the_state_before_the_token_and_a_bonus_of_the_token(lengths, continued):
    args = arguments(sum(lengths))
    initial = draw(len(lengths), HEADS, WIDTH, WIDTH, seed=9) if continued else None
    got = matrix_wkv(*args, lengths, initial)
    for actual, expected in zip(got, by_definition(*args, lengths, initial), strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("cuts", [(1,) * 9, (4, 5), (1, 7, 1)])
def test_pieces_continue_from_the_states_of_earlier_ones(cuts):
    args = arguments(9)
    whole, last = matrix_wkv(*args, (9,))
    state, pieces = None, []
    for tokens in zip(*(x.split(cuts) for x in args[:4]), strict=True):
        out, state = matrix_wkv(*tokens, args[4], (len(tokens[0]),), state)
        pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces), whole)
    torch.testing.assert_close(state, last)


def test_with_a_bonus_of_one_and_no_decay_it_is_causal_linear_attention():
    r, k, v, _, _ = arguments(20)
    weights = torch.einsum("tnk,snk->nts", r, k).tril()
    got, _ = matrix_wkv(
        r, k, v, torch.zeros_like(r), torch.ones(HEADS, WIDTH, dtype=r.dtype), (20,)
    )
    torch.testing.assert_close(got, torch.einsum("nts,snv->tnv", weights, v))


def test_gradients_are_those_of_finite_differences():
    leaves = [*arguments(8), draw(2, HEADS, WIDTH, WIDTH, seed=9)]
    for leaf in leaves:
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *x: matrix_wkv(*x[:5], (7, 1), x[5]), leaves, fast_mode=True
    )


def test_sums_are_float32_in_bfloat16_and_under_autocast():
    args = arguments(40, torch.bfloat16)
    expected, state = matrix_wkv(*(x.float() for x in args), (40,))
    got, final = matrix_wkv(*args, (40,))
    assert (got.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(got, expected.bfloat16())
    torch.testing.assert_close(final, state)
    floats = [x.float() for x in args]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(matrix_wkv(*floats, (40,))[0], expected)
