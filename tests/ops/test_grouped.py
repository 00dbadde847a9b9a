"""Linear maps per expert: any load, padding, the order of rows, bits of a row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.ops import grouped_linear
from weft.ops.grouped import device, loop, reference
from weft.ops.grouped.blocks import align_blocks
from weft.ops.grouped.order import expert_counts, expert_order
from weft.ops.grouped.permute import combine_by_token, rows_by_expert
from weft.ops.linear import onednn

LOADS = {"even": [5, 5, 5, 5], "empty": [0, 7, 0, 3], "one": [0, 0, 20, 0], "none": [0, 0, 0, 0]}


@pytest.mark.parametrize("counts", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_gradient_of_the_loop_is_that_of_finite_differences(counts, with_bias):
    torch.manual_seed(0)
    x = torch.randn(sum(counts), 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, 2, dtype=torch.float64, requires_grad=True) if with_bias else None
    leaves = (x, weight) if bias is None else (x, weight, bias)
    assert torch.autograd.gradcheck(
        lambda *_: loop.grouped_linear(x, weight, bias, torch.tensor(counts)), leaves
    )


def test_grouped_mm_computes_the_reference():
    torch.manual_seed(0)
    counts = torch.tensor([3, 0, 9, 4])
    x, weight = torch.randn(16, 8).bfloat16(), torch.randn(4, 24, 8).bfloat16()
    bias = torch.randn(4, 24).bfloat16()
    for b in (None, bias):
        torch.testing.assert_close(
            device.grouped_linear(x, weight, b, counts),
            reference.grouped_linear(x, weight, b, counts),
            atol=5e-2, rtol=2e-2,
        )  # fmt: skip
    assert not device.accepts(x, weight, None, counts), "the kernel is for CUDA"


@pytest.mark.parametrize("backend", ["oneDNN", "MKL"])
def test_a_row_has_the_same_bits_whatever_its_experts_load_is(backend, monkeypatch):
    if backend == "MKL":
        monkeypatch.setattr(onednn, "available", lambda: False)
    elif not onednn.available():
        pytest.skip("this torch has no oneDNN")
    torch.manual_seed(0)
    x, weight = torch.randn(300, 64), torch.randn(3, 96, 64)
    many = grouped_linear(x, weight, None, torch.tensor([0, 300, 0]))
    for start, count in ((0, 1), (17, 2), (40, 3), (100, 15), (200, 100)):
        rows = x[start : start + count]
        few = grouped_linear(rows, weight, None, torch.tensor([0, count, 0]))
        assert torch.equal(few, many[start : start + count])


def test_products_follow_autocast():
    x, weight = torch.randn(4, 8, requires_grad=True), torch.randn(2, 6, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = grouped_linear(x, weight, None, torch.tensor([1, 3]))
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32


experts_lists = st.lists(st.integers(0, 6), min_size=0, max_size=60)


@given(experts_lists)
@settings(deadline=None, max_examples=60)
def test_sorting_is_stable_and_inverted_by_its_places(experts):
    experts_A = torch.tensor(experts, dtype=torch.int64)
    order = expert_order(experts_A, 6)
    assert order.sorted_A.tolist() == sorted(range(len(experts)), key=lambda a: experts[a])
    assert torch.equal(order.sorted_A[order.place_A], torch.arange(len(experts)))
    assert order.counts_E.tolist() == [experts.count(e) for e in range(6)]
    assert torch.equal(expert_counts(experts_A, 6), order.counts_E)


@given(experts_lists, st.sampled_from([1, 2, 4, 16]))
@settings(deadline=None, max_examples=60)
def test_blocks_hold_every_assignment_once_in_blocks_of_one_expert(experts, block_size):
    blocks = align_blocks(torch.tensor(experts, dtype=torch.int64), 7, block_size)
    rows, owners = [], []
    for expert in range(7):  # the definition, in Python
        mine = [a for a, e in enumerate(experts) if e == expert]
        mine += [len(experts)] * (-len(mine) % block_size)
        rows += [mine[i : i + block_size] for i in range(0, len(mine), block_size)]
        owners += [expert] * (len(mine) // block_size)
    assert blocks.assignments_NB.tolist() == rows
    assert blocks.experts_N.tolist() == owners
    assert blocks.num_padded == len(rows) * block_size


def test_spreading_and_combining_have_right_gradients():
    torch.manual_seed(0)
    ids_TK = torch.tensor([[0, 2], [2, 1], [0, 3], [3, 3]])  # expert 3 stands for none
    order = expert_order(ids_TK.flatten(), 3)
    num_rows = int(order.counts_E.sum())
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(4, 2, dtype=torch.float64, requires_grad=True)

    def both(x_TD, weights_TK):
        return combine_by_token(rows_by_expert(x_TD, order, num_rows).square(), order, weights_TK)

    assert torch.autograd.gradcheck(both, (x, weights))
    kept = torch.tensor([2.0, 2.0, 1.0, 0.0], dtype=torch.float64)[:, None]
    ones = torch.ones(4, 2, dtype=torch.float64)
    torch.testing.assert_close(both(x, ones), x.square() * kept)
