"""Row R10: expanded and absorbed latent attention are the same numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.nn.latent.support import DENSE, random_tokens
from weft.nn.latent import modes
from weft.nn.latent.modes import absorb_queries, attend_absorbed, attend_expanded, expand
from weft.nn.latent.tokens import LatentTokens

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def naive(tokens: LatentTokens, num_queries: int, mask_TS: Tensor) -> Tensor:
    """Latent attention head by head and query by query, in float64."""
    latent_SE, up_NMC = tokens.latent_TE.double(), tokens.up_NMC.double()
    latent_SC, rope_SR = latent_SE[:, : DENSE.kv_latent_dim], latent_SE[:, DENSE.kv_latent_dim :]
    rows = []
    for query, q_NH in enumerate(tokens.q_TNH[-num_queries:].double()):
        heads = []
        for up_MC, q_H in zip(up_NMC, q_NH, strict=True):
            keys_SP = latent_SC @ up_MC[: DENSE.nope_head_dim].T
            values_SV = latent_SC @ up_MC[DENSE.nope_head_dim :].T
            scores_S = torch.cat((keys_SP, rope_SR), 1) @ q_H * (8 + 4) ** -0.5
            weights_S = scores_S.masked_fill(~mask_TS[query], -torch.inf).softmax(0)
            heads.append(weights_S @ values_SV)
        rows.append(torch.stack(heads))
    return torch.stack(rows)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20), st.integers(1, 12), st.integers(0, 10_000), st.booleans())
def test_both_modes_equal_the_definition(
    num_cached: int, num_new: int, seed: int, with_mask: bool
) -> None:
    num_keys = num_cached + num_new
    tokens = random_tokens(num_keys, DENSE, seed)
    mask_TS = torch.ones(num_new, num_keys, dtype=torch.bool).tril(num_cached)
    if with_mask:
        keep_TS = torch.rand(num_new, num_keys, generator=torch.Generator().manual_seed(seed)) < 0.5
        mask_TS &= keep_TS | torch.eye(num_new, num_keys, dtype=torch.bool)
        mask_TS[:, 0] = True
    expected = naive(tokens, num_new, mask_TS).float()
    for attend in (attend_expanded, attend_absorbed):
        actual = attend(
            tokens.q_TNH[-num_new:], tokens.latent_TE, tokens.up_NMC, DENSE,
            mask_TS if with_mask else None,
        )  # fmt: skip
        torch.testing.assert_close(actual, expected, **TOLERANCE)


def test_absorbed_scores_are_the_expanded_ones() -> None:
    tokens = random_tokens(7, DENSE)
    keys_SNH, _ = expand(tokens.latent_TE, tokens.up_NMC, DENSE)
    expanded = torch.einsum("tnh,snh->nts", tokens.q_TNH, keys_SNH)
    queries_TNE = absorb_queries(tokens.q_TNH, tokens.up_NMC, DENSE)
    absorbed = torch.einsum("tne,se->nts", queries_TNE, tokens.latent_TE)
    torch.testing.assert_close(absorbed, expanded, **TOLERANCE)


def test_long_chunks_are_absorbed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = random_tokens(11, DENSE)
    args = (tokens.q_TNH[-7:], tokens.latent_TE, tokens.up_NMC, DENSE)
    whole = attend_absorbed(*args)
    monkeypatch.setattr(modes, "MAX_SCORES", 3 * 11 * 2)
    torch.testing.assert_close(attend_absorbed(*args), whole, **TOLERANCE)


@pytest.mark.parametrize("attend", [attend_expanded, attend_absorbed])
def test_bfloat16_stays_close_to_float32(attend) -> None:
    tokens = random_tokens(9, DENSE)
    args = (tokens.q_TNH, tokens.latent_TE, tokens.up_NMC)
    expected = attend(*args, DENSE)
    actual = attend(*(tensor.bfloat16() for tensor in args), DENSE)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.float(), expected, atol=0.05, rtol=0.05)
