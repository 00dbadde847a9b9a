"""Cutting sequences into chunks loses, repeats and reorders nothing."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.ops.linear_attention.chunks import cut

LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=6)
CPU = torch.device("cpu")


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(1, 9))
def test_split_then_join_is_the_identity_and_fills_with_zeros(lengths, size):
    chunks = cut(lengths, size, CPU)
    x_TN = torch.arange(1.0, 2 * sum(lengths) + 1).view(-1, 2)
    x_MNC = chunks.split(x_TN)
    assert x_MNC.shape[2] == size
    assert len(x_MNC) == sum(-(-length // size) for length in lengths)
    assert torch.equal(chunks.join(x_MNC, len(x_TN)), x_TN)
    assert x_MNC.sum() == x_TN.sum()
    for chunk, fill in zip(x_MNC, chunks.fill_M, strict=True):
        assert (chunk[:, :fill] > 0).all()
        assert (chunk[:, fill:] == 0).all()


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(1, 9))
def test_a_carried_state_meets_the_chunks_of_its_own_sequence_in_order(lengths, size):
    """A state that appends what it meets ends as the sequence it belongs to."""
    chunks = cut(lengths, size, CPU)
    tokens_T = torch.arange(1.0, sum(lengths) + 1)
    base = 1000.0
    pieces_M = [
        [int(token) for token in chunk if token > 0]
        for chunk in chunks.split(tokens_T[:, None]).squeeze(1)
    ]
    seen: dict[int, list[int]] = {row: [] for row in range(len(lengths))}

    def advance(rows: slice, state_B: torch.Tensor) -> torch.Tensor:
        for chunk, row in zip(range(rows.start, rows.stop), state_B.tolist(), strict=True):
            seen[int(row % base)] += pieces_M[chunk]
        return state_B + base

    rows_B = torch.arange(float(len(lengths)))
    starts_M, finals_B = chunks.carry(rows_B, advance)
    expected = [part.tolist() for part in tokens_T.split(lengths)]
    assert [seen[row] for row in range(len(lengths))] == expected
    counts = [-(-length // size) for length in lengths]
    assert finals_B.tolist() == [row + base * count for row, count in enumerate(counts)]
    assert len(starts_M) == sum(counts)
