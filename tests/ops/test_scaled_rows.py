"""Quantized rows: how far codes may be off, and what that does to attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from weft.ops import PagedLayout, ScoreRule, paged_attention
from weft.ops.attention import native, paged, reference
from weft.ops.formats.float_format import E4M3, E5M2
from weft.ops.native.bindings import load_library
from weft.ops.scaled_rows import CODE_LIMITS, ScaledRows, code_error, dequantize, quantize

CODES = list(CODE_LIMITS)
needs_native = pytest.mark.skipif(load_library() is None, reason="no C compiler")


def table(values: Tensor, dtype: torch.dtype) -> ScaledRows:
    return ScaledRows(*quantize(values, dtype))


@pytest.mark.parametrize(("dtype", "format"), [(CODES[1], E4M3), (CODES[2], E5M2)])
def test_limits_are_the_largest_numbers_of_the_formats(dtype, format) -> None:
    assert CODE_LIMITS[dtype] == format.max_value == torch.finfo(dtype).max
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert smallest == format.smallest_subnormal


def test_int8_codes_of_a_small_row() -> None:
    codes, scale = quantize(torch.tensor([[-2.54, 0.02, 1.0, 0.0]]), torch.int8)
    assert codes.tolist() == [[-127, 1, 50, 0]]
    assert scale.item() == pytest.approx(0.02)


@pytest.mark.parametrize("dtype", CODES, ids=str)
@given(seed=st.integers(0, 10_000), spread=st.floats(0.0, 12.0))
def test_no_number_is_off_by_more_than_the_bound(dtype, seed, spread) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(5, 3, 16, generator=generator)
    values = values * (spread * torch.randn(5, 3, 16, generator=generator)).exp()
    codes, scales = quantize(values, dtype)
    off = (dequantize(codes, scales).double() - values.double()).abs()
    # Four roundings in float32 besides: of the factor, the quotient, the product and the bound.
    bound = code_error(values, scales, dtype).double() * (1 + 2**-20) + values.abs() * 2**-21
    assert (off <= bound).all()


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_zeros_stay_zeros_and_what_is_not_finite_does_not_hide(dtype) -> None:
    values = torch.zeros(3, 4)
    values[1, 2], values[2, 0] = float("nan"), float("inf")
    back = dequantize(*quantize(values, dtype))
    assert (back[0] == 0).all()
    assert not back[1].isfinite().any()
    assert not back[2].isfinite().any()


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_a_row_does_not_depend_on_its_neighbours(dtype) -> None:
    values = torch.randn(7, 2, 16)
    together, alone = quantize(values, dtype), quantize(values[3:4], dtype)
    assert torch.equal(together[0][3:4].view(torch.int8), alone[0].view(torch.int8))
    assert torch.equal(together[1][3:4], alone[1])


def test_an_index_gives_numbers_and_exact_columns() -> None:
    values, exact = torch.randn(6, 8), torch.randn(6, 2, dtype=torch.bfloat16)
    rows = ScaledRows(*quantize(values, torch.int8), exact)
    places = torch.tensor([[4, 0], [2, 2]])
    assert rows.shape == (6, 10)
    assert rows[places].shape == (2, 2, 10)
    assert torch.equal(rows[places][..., 8:], exact[places].float())


class Step:
    """Three sequences in a cache of 300 slots: a decode, a chunk and a whole prompt."""

    queries, contexts = (1, 20, 70), (130, 33, 70)

    def __init__(self, width: int = 32, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(7)
        free = torch.randperm(300, generator=generator)
        slots_BS = torch.zeros(3, max(self.contexts), dtype=torch.int64)
        for row, context in enumerate(self.contexts):
            slots_BS[row, :context], free = free[:context], free[context:]
        self.layout = PagedLayout(self.queries, self.contexts, slots_BS, decode=False)
        self.q = torch.randn(sum(self.queries), 4, width, generator=generator).to(dtype)
        self.k, self.v = (torch.randn(300, 2, width, generator=generator) for _ in range(2))
        self.rule = ScoreRule(width**-0.5)


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_attention_is_off_by_no_more_than_its_bound(dtype) -> None:
    """Hold ``|o' - o| <= e_v + (exp(2 x) - 1) max|v|``.

    With keys off by e_k and values by e_v at most, a score moves by at most
    ``x = scale |q|_1 e_k``, hence a weight by a factor within ``exp(-2 x) .. exp(2 x)``.
    """
    step = Step()
    k, v = table(step.k, dtype), table(step.v, dtype)
    exact = reference.paged_attention(step.q, step.k, step.v, step.layout, step.rule)
    actual = paged_attention(step.q, k, v, step.layout, step.rule)
    key_error = code_error(step.k, k.scales, dtype).max()
    value_error = code_error(step.v, v.scales, dtype).max()
    moved_TN = step.rule.scale * step.q.abs().sum(-1) * key_error
    bound_TN1 = (value_error + (2 * moved_TN).expm1() * step.v.abs().max()).unsqueeze(-1)
    off = (actual - exact).abs()
    assert (off <= bound_TN1).all()
    assert off.max() > 0
    if dtype == torch.int8:
        assert bound_TN1.median() < 1.0, "the bound says something"
        assert off.max() < 0.05


@pytest.mark.parametrize("dtype", CODES, ids=str)
@pytest.mark.parametrize("rule", [ScoreRule(0.2, 9), ScoreRule(0.2, softcap=5.0)], ids=str)
def test_every_implementation_reads_the_same_numbers(dtype, rule) -> None:
    step = Step()
    k, v = table(step.k, dtype), table(step.v, dtype)
    plain = [dequantize(rows.codes, rows.scales) for rows in (k, v)]
    expected = reference.paged_attention(step.q, *plain, step.layout, rule)
    for function in (reference.paged_attention, paged.paged_attention, paged_attention):
        actual = function(step.q, k, v, step.layout, rule)
        torch.testing.assert_close(actual, expected, rtol=2e-5, atol=2e-6)


@needs_native
@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_c_reads_codes_as_torch_does_to_the_bit(dtype) -> None:
    step = Step()
    # All codes that a finite row can hold, in the value rows.
    every = torch.arange(-128, 128, dtype=torch.int16).to(torch.int8).view(dtype)
    every = every[every.float().isfinite()]
    k, v = table(step.k, dtype), table(step.v, dtype)
    v.codes.flatten().view(torch.int8)[: 40 * len(every)] = every.view(torch.int8).repeat(40)
    assert native.accepts(step.q, k, v, step.layout, step.rule)
    plain = [dequantize(rows.codes, rows.scales) for rows in (k, v)]
    expected = native.paged_attention(step.q, *plain, step.layout, step.rule)
    assert torch.equal(native.paged_attention(step.q, k, v, step.layout, step.rule), expected)


@needs_native
@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_a_token_has_the_same_bits_alone_and_in_a_chunk(dtype) -> None:
    step = Step(dtype=torch.bfloat16)
    k, v = table(step.k, dtype), table(step.v, dtype)
    together = paged_attention(step.q, k, v, step.layout, step.rule)
    for place in range(21, 91, 7):
        context = place - 20
        layout = PagedLayout((1,), (context,), step.layout.slots_BS[2:, :context], decode=True)
        alone = paged_attention(step.q[place : place + 1], k, v, layout, step.rule)
        assert torch.equal(alone, together[place : place + 1])
