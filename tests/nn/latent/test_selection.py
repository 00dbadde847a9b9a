"""Row R11: the kept positions are those of a brute-force top-k."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nn.latent.support import random_tokens, sparse
from weft.nn.latent import selection
from weft.nn.latent.selection import index_scores, select, top_positions


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 14), st.integers(1, 8), st.data())
def test_kept_positions_are_the_brute_force_top_k(num_queries, num_cached, top_k, data) -> None:
    num_keys = num_queries + num_cached
    # Few distinct values: ties are common.
    values = data.draw(
        st.lists(
            st.lists(st.integers(-2, 2), min_size=num_keys, max_size=num_keys),
            min_size=num_queries,
            max_size=num_queries,
        )
    )
    visible_TS = torch.ones(num_queries, num_keys, dtype=torch.bool).tril(num_cached)
    kept = top_positions(torch.tensor(values, dtype=torch.float32), visible_TS, top_k)
    for query, row in enumerate(values):
        seen = range(num_cached + query + 1)
        best = sorted(seen, key=lambda position, row=row: (-row[position], position))[:top_k]
        assert kept[query].nonzero().flatten().tolist() == sorted(best)


def test_scores_are_the_weighted_sum_of_rectified_products() -> None:
    index = random_tokens(6, sparse(3)).index
    assert index is not None
    expected = torch.zeros(6, 6)
    for t in range(6):
        for s in range(6):
            for head in range(9):
                product = (index.q_TIJ[t, head] @ index.key_TJ[s]).item()
                expected[t, s] += index.weights_TI[t, head] * max(product, 0.0)
    torch.testing.assert_close(index_scores(index, index.key_TJ), expected, atol=1e-5, rtol=1e-5)


def test_scores_do_not_depend_on_the_size_of_blocks(monkeypatch) -> None:
    index = random_tokens(11, sparse(3)).index
    assert index is not None
    whole = index_scores(index, index.key_TJ)
    monkeypatch.setattr(selection, "MAX_PRODUCTS", 9 * 11 * 2)
    torch.testing.assert_close(index_scores(index, index.key_TJ), whole)


def test_everything_visible_is_kept_where_top_k_covers_the_length() -> None:
    index = random_tokens(5, sparse(5)).index
    assert index is not None
    kept = select(index, index.key_TJ, 5)
    assert torch.equal(kept, torch.ones(5, 5, dtype=torch.bool).tril())


def test_each_query_keeps_k_positions_or_all_it_sees() -> None:
    index = random_tokens(12, sparse(4)).index
    assert index is not None
    kept = select(index, index.key_TJ, 4)
    assert kept.sum(1).tolist() == [1, 2, 3] + [4] * 9
    assert not kept.triu(1).any()
