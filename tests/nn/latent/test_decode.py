"""Row X04: decoding over paged latents in splits is absorbed attention of each sequence."""

from __future__ import annotations

import pytest
import torch

from tests.nn.latent.support import DENSE, cut, paged_step, random_tokens
from weft.nn.latent import decode
from weft.nn.latent.decode import mix_in_splits
from weft.nn.latent.modes import absorb_queries, absorb_values, attend_absorbed
from weft.nn.latent.paged import attend_paged
from weft.ops import PagedLayout

# Start, cached and new tokens: contexts of 9, 200, 1 and 65.
WORK = [(0, 8, 1), (9, 199, 1), (209, 0, 1), (210, 64, 1)]


@pytest.mark.parametrize("split_size", [1, 7, 64, 65, 1024])
def test_any_size_of_splits_gives_each_sequences_own_result(
    split_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "SPLIT_SIZE", split_size)
    tokens = random_tokens(275, DENSE)
    new, stored, layout, places = paged_step(tokens, WORK)
    q_BNE = absorb_queries(new.q_TNH, new.up_NMC, DENSE)
    mixed = absorb_values(mix_in_splits(q_BNE, stored["latent"], layout, DENSE), new.up_NMC, DENSE)
    for row, (start, cached, _) in enumerate(WORK):
        query = tokens.q_TNH[places[row] : places[row] + 1]
        latents = tokens.latent_TE[start : start + cached + 1]
        expected = attend_absorbed(query, latents, tokens.up_NMC, DENSE)
        torch.testing.assert_close(mixed[row : row + 1], expected, atol=1e-5, rtol=1e-5)


def test_large_scores_do_not_overflow() -> None:
    tokens = random_tokens(40, DENSE)
    new, stored, layout, _ = paged_step(tokens, [(0, 39, 1)])
    q_BNE = 1e4 * absorb_queries(new.q_TNH, new.up_NMC, DENSE)
    assert mix_in_splits(q_BNE, stored["latent"], layout, DENSE).isfinite().all()


@pytest.mark.parametrize("split_pages", [1, 2, 16])
def test_decode_over_pages_of_64_tokens_in_splits_is_absorbed_attention(
    split_pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paged MLA decoding as in FlashMLA: contexts end inside, at and just behind a page."""
    monkeypatch.setattr(decode, "SPLIT_SIZE", 64 * split_pages)
    contexts = (1, 63, 64, 65, 300)
    tokens = random_tokens(sum(contexts), DENSE)
    num_pages = [-(-context // 64) for context in contexts]
    pages = torch.randperm(sum(num_pages), generator=torch.Generator().manual_seed(2))
    stored = torch.full((64 * sum(num_pages), 20), 1e3)
    slots_BS = torch.zeros(len(contexts), max(contexts), dtype=torch.int64)
    firsts = [sum(contexts[:row]) for row in range(len(contexts))]
    for row, (first, context, own) in enumerate(
        zip(firsts, contexts, pages.split(num_pages), strict=True)
    ):
        slots_S = (own[:, None] * 64 + torch.arange(64)).flatten()[:context]
        slots_BS[row, :context] = slots_S
        stored[slots_S] = tokens.latent_TE[first : first + context]
    layout = PagedLayout((1,) * len(contexts), contexts, slots_BS, decode=True)
    lasts = [first + context - 1 for first, context in zip(firsts, contexts, strict=True)]
    new = cut(tokens, lasts)
    actual = attend_paged(new, {"latent": stored}, layout, DENSE)
    for row, (first, context) in enumerate(zip(firsts, contexts, strict=True)):
        latent_SE = tokens.latent_TE[first : first + context]
        expected = attend_absorbed(new.q_TNH[row : row + 1], latent_SE, tokens.up_NMC, DENSE)
        torch.testing.assert_close(actual[row : row + 1], expected, rtol=1e-5, atol=1e-5)
