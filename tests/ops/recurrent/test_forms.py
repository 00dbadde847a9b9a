"""The forms of one recurrence agree, whatever the chunk, the lengths and the rates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from weft.ops import recurrent
from weft.ops.delta import chunkwise as delta_chunkwise
from weft.ops.delta import reference as delta_reference
from weft.ops.linear_attention import chunkwise, parallel, reference
from weft.ops.linear_attention.features import FEATURE_MAPS
from weft.ops.rwkv import chunkwise as wkv_chunkwise
from weft.ops.rwkv import reference as wkv_reference

LENGTHS = (37, 1, 100, 5)
TOKENS, HEADS, KEYS, VALUES = sum(LENGTHS), 4, 8, 12
DECAYS = {"none": 0, "head": 1, "channel": KEYS}


def inputs(*, decay: int, groups: int = HEADS, scale: float = 1.0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    q, k, v = draw(TOKENS, groups, KEYS), draw(TOKENS, groups, KEYS), draw(TOKENS, HEADS, VALUES)
    k = torch.nn.functional.normalize(k, dim=-1)
    log_decay = -(scale * draw(TOKENS, HEADS, decay)).exp() if decay else None
    initial = draw(len(LENGTHS), HEADS, KEYS, VALUES)
    return q, k, v, log_decay, initial


def assert_all_close(actual, expected, *, atol: float = 1e-5) -> None:
    for got, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, want, atol=atol, rtol=1e-5)


@pytest.mark.parametrize("feature_map", FEATURE_MAPS)
@pytest.mark.parametrize("decay", DECAYS)
def test_recurrent_chunkwise_and_parallel_forms_are_equal(feature_map, decay):
    # Row R13: three forms equal to 1e-5.
    q, k, v, log_decay, _ = inputs(decay=DECAYS[decay])
    phi = FEATURE_MAPS[feature_map]
    args = (phi(q), phi(k), v, log_decay, LENGTHS)
    expected, _ = reference.linear_attention(*args, None)
    scale = float(expected.abs().max())
    for got in (chunkwise.linear_attention(*args, None)[0], parallel.linear_attention(*args)):
        torch.testing.assert_close(got / scale, expected / scale, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("decay", DECAYS)
def test_chunks_of_any_size_give_the_recurrence(decay, groups, size):
    q, k, v, log_decay, initial = inputs(decay=DECAYS[decay], groups=groups)
    args = (q, k, v, log_decay, LENGTHS, initial)
    assert_all_close(chunkwise.linear_attention(*args, size), reference.linear_attention(*args))
    beta = torch.linspace(0, 1, TOKENS * HEADS).view(TOKENS, HEADS)
    args = (q, k, v, beta, log_decay, LENGTHS, initial)
    assert_all_close(delta_chunkwise.delta_rule(*args, size), delta_reference.delta_rule(*args))


@pytest.mark.parametrize("decay", ["head", "channel"])
def test_rates_from_nothing_to_everything_stay_exact(decay):
    """Some tokens forget nothing, some all; the first overflow where decays are divided."""
    q, k, v, _, initial = inputs(decay=0)
    generator = torch.Generator().manual_seed(3)
    rates = torch.tensor([0.0, 1e-4, 0.3, 5.0, 30.0, 300.0])
    shape = (TOKENS, HEADS, DECAYS[decay])
    log_decay = -rates[torch.randint(len(rates), shape, generator=generator)]
    doubles = [x.double() for x in (q, k, v, log_decay, initial)]
    for fast, slow, extra in (
        (chunkwise.linear_attention, reference.linear_attention, ()),
        (delta_chunkwise.delta_rule, delta_reference.delta_rule, (torch.ones(TOKENS, HEADS),)),
    ):
        got = fast(q, k, v, *extra, log_decay, LENGTHS, initial)
        q64, k64, v64, decay64, initial64 = doubles
        want = slow(q64, k64, v64, *(x.double() for x in extra), decay64, LENGTHS, initial64)
        assert all(x.isfinite().all() for x in got)
        assert_all_close([x.double() for x in got], want, atol=2e-5)


@pytest.mark.parametrize("decay", ["head", "channel"])
def test_gradients_are_finite_where_everything_is_forgotten(decay):
    q, k, v, _, initial = inputs(decay=0)
    log_decay = torch.full((TOKENS, HEADS, DECAYS[decay]), -1000.0, requires_grad=True)
    for x in (q, k, v):
        x.requires_grad_()
    beta = torch.ones(TOKENS, HEADS, requires_grad=True)
    out = chunkwise.linear_attention(q, k, v, log_decay, LENGTHS, initial)[0].sum()
    out = out + delta_chunkwise.delta_rule(q, k, v, beta, log_decay, LENGTHS, initial)[0].sum()
    out.backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v, beta, log_decay))


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("name", ["linear_attention", "delta_rule"])
def test_chunkwise_gradients_are_those_of_finite_differences(name, decay):
    lengths, width = (19, 3), 4
    generator = torch.Generator().manual_seed(1)
    shape = lambda *s: torch.randn(*s, generator=generator, dtype=torch.float64)  # noqa: E731
    q, k, v = shape(22, 1, width), shape(22, 1, width), shape(22, 2, 3)
    with torch.no_grad():
        k /= k.norm(dim=-1, keepdim=True)
    leaves = [q, k, v, shape(2, 2, width, 3)]
    if name == "delta_rule":
        leaves.append(shape(22, 2).sigmoid())
    if decay != "none":
        leaves.append(-shape(22, 2, 1 if decay == "head" else width).exp())
    for x in leaves:
        x.requires_grad_()

    def function(q, k, v, initial, *rest):
        rest = list(rest)
        extra = [rest.pop(0)] if name == "delta_rule" else []
        forward = chunkwise.linear_attention if not extra else delta_chunkwise.delta_rule
        return forward(q, k, v, *extra, rest[0] if rest else None, lengths, initial, 16)

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


def test_wkv_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(2)
    shapes = ((3,), (3,), (11, 3), (11, 3))
    leaves = [torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes]
    with torch.no_grad():
        leaves[0].abs_()
    for x in leaves:
        x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *args: wkv_chunkwise.wkv(*args, (7, 1, 3), None, 4)[0], leaves, fast_mode=True
    )


@pytest.mark.parametrize("size", [1, 3, 16, 64])
def test_wkv_survives_keys_that_no_exponential_holds(size):
    """The running maximum is what keeps exp(k) out of reach (row R16)."""
    generator = torch.Generator().manual_seed(4)
    k = 300 * torch.randn(TOKENS, 6, generator=generator)
    v = torch.randn(TOKENS, 6, generator=generator)
    decay, bonus = torch.tensor([0.0, 1e-4, 0.1, 1.0, 20.0, 100.0]), torch.linspace(-3, 3, 6)
    args = (decay, bonus, k, v)
    got, state = wkv_chunkwise.wkv(*args, LENGTHS, None, size)
    want, _ = wkv_reference.wkv(*(x.double() for x in args), LENGTHS, None)
    assert got.isfinite().all()
    assert state.isfinite().all()
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-4)


def test_wkv_of_a_fresh_state_of_zeros_has_seen_nothing():
    k, v = torch.full((3, 2), -200.0), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    zeros = torch.zeros(1, 3, 2)
    args = (torch.ones(2), torch.zeros(2), k, v, (3,))
    for initial in (None, zeros):
        got, _ = recurrent.wkv(*args, initial)
        torch.testing.assert_close(got[0], v[0])
        assert got.isfinite().all()


@pytest.mark.parametrize("op", ["linear_attention", "delta_rule", "wkv", "short_conv", "shift"])
@pytest.mark.parametrize("cuts", [(1,) * 9, (4, 5), (1, 7, 1), (8, 1)])
def test_cut_sequences_continue_from_their_states(op, cuts):
    """Whole sequences give what pieces give that hand their states on."""
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(9, 2, *shape, generator=generator)  # noqa: E731
    if op == "wkv":
        function = lambda t, lengths, state: recurrent.wkv(  # noqa: E731
            torch.rand(3, generator=torch.Generator().manual_seed(1)), torch.ones(3), *t, lengths,
            state,
        )  # fmt: skip
        tensors = [draw(3), draw(3)]
    elif op == "short_conv":
        weight = torch.randn(3, 4, generator=generator)
        function = lambda t, lengths, state: recurrent.short_conv(  # noqa: E731
            *t, weight, None, lengths, state
        )
        tensors = [draw(3)]
    elif op == "shift":
        function = lambda t, lengths, state: recurrent.token_shift(*t, lengths, state)  # noqa: E731
        tensors = [draw(3)]
    else:
        tensors = [draw(2, 4), torch.nn.functional.normalize(draw(2, 4), dim=-1), draw(2, 3)]
        tensors += [draw(2).sigmoid()] if op == "delta_rule" else []
        tensors.append(-draw(2, 4).exp())
        function = lambda t, lengths, state: getattr(recurrent, op)(*t, lengths, state)  # noqa: E731

    def flat(start: int, stop: int) -> list[Tensor]:
        return [x[start:stop].transpose(0, 1).flatten(0, 1) for x in tensors]

    whole, last = function(flat(0, 9), (9, 9), None)
    pieces, state, start = [], None, 0
    for size in cuts:
        out, state = function(flat(start, start + size), (size, size), state)
        pieces.append(out.unflatten(0, (2, size)))
        start += size
    assert_all_close([torch.cat(pieces, 1).flatten(0, 1)], [whole])
    if op != "wkv":  # its state may be written over any exponent
        assert_all_close([state], [last])


def test_sums_stay_float32_under_autocast():
    q, k, v, log_decay, initial = inputs(decay=1)
    expected = recurrent.linear_attention(q, k, v, log_decay, LENGTHS, initial)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = recurrent.linear_attention(q, k, v, log_decay, LENGTHS, initial)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_a_mixed_batch_takes_one_step_for_all_single_tokens():
    q, k, v, log_decay, _ = inputs(decay=1)
    lengths = (1, 40, 1, 1, 99, 1)
    args = (q, k, v, log_decay, lengths, None)
    assert_all_close(recurrent.linear_attention(*args), reference.linear_attention(*args))


def test_token_shift_gives_each_sequence_its_own_predecessors():
    x = torch.arange(6.0)[:, None]
    got, last = recurrent.token_shift(x, (3, 1, 2))
    assert got[:, 0].tolist() == [0, 0, 1, 0, 0, 4]
    assert last[:, 0].tolist() == [2, 3, 5]
    got, _ = recurrent.token_shift(x, (3, 1, 2), torch.tensor([[7.0], [8.0], [9.0]]))
    assert got[:, 0].tolist() == [7, 0, 1, 8, 9, 4]
