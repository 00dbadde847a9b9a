"""Latent attention over the paged cache: chunks beside single tokens, in either mode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.nn.latent.support import DENSE, cut, paged_step, random_tokens, sparse
from weft.nn.latent import paged
from weft.nn.latent.packed import attend_packed
from weft.nn.latent.paged import attend_paged
from weft.plan.mla_mode import break_even_tokens
from weft.spec import MLASpec

LENGTHS = (9, 14, 1, 6)
# Start of each sequence, cached tokens, new tokens.
STEPS = {
    "prompts": [(0, 0, 9), (9, 0, 14), (23, 0, 1), (24, 0, 6)],
    "decode": [(0, 8, 1), (9, 13, 1), (24, 5, 1)],
    "decode and a first token": [(0, 8, 1), (9, 13, 1), (23, 0, 1), (24, 5, 1)],
    "chunks and decode": [(0, 3, 4), (9, 13, 1), (23, 0, 1), (24, 5, 1)],
    "one chunk": [(9, 12, 2)],
}
SPECS = {"dense": DENSE, "all": sparse(64), "four": sparse(4), "one": sparse(1)}


@pytest.fixture(params=["as planned", "expanded", "absorbed"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run as the planner would, and forced into either mode."""
    if request.param != "as planned":
        monkeypatch.setattr(paged, "prefer_absorbed", lambda *_, **__: request.param == "absorbed")
    return request.param


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", SPECS)
def test_every_mode_equals_the_packed_form(mode: str, name: str, step: str) -> None:
    spec = SPECS[name]
    tokens = random_tokens(sum(LENGTHS), spec)
    expected = attend_packed(tokens, LENGTHS, spec)
    new, stored, layout, places = paged_step(tokens, STEPS[step])
    actual = attend_paged(new, stored, layout, spec)
    torch.testing.assert_close(actual, expected[places], atol=1e-5, rtol=1e-5)


def modes_of(work: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the mode each sequence was computed in, as its rows are written."""
    spec = MLASpec(2, 64, 16, 8, 16)
    tokens = random_tokens(400, spec)
    seen: list[str] = []

    def spy(name: str):
        function = getattr(paged, name)

        def call(*args: object) -> Tensor:
            seen.append(name)
            return function(*args)

        return call

    for name in ("_attend_decodes", "attend_absorbed", "attend_expanded"):
        monkeypatch.setattr(paged, name, spy(name))
    new, stored, layout, _ = paged_step(tokens, work)
    attend_paged(new, stored, layout, spec)
    monkeypatch.undo()
    return seen


def test_mode_flips_at_the_planners_break_even(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = break_even_tokens(100, kv_rank=64, nope_dim=16, value_dim=16)
    below, above = int(limit), int(limit) + 1
    assert modes_of([(0, 100, below)], monkeypatch) == ["attend_absorbed"]
    assert modes_of([(0, 100, above)], monkeypatch) == ["attend_expanded"]


def test_mode_depends_on_the_sequence_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large, first = (0, 100, 3), (150, 10, 100), (300, 0, 1)
    assert modes_of([small], monkeypatch) == ["attend_absorbed"]
    assert modes_of([large], monkeypatch) == ["attend_expanded"]
    together = modes_of([large, small, first], monkeypatch)
    assert together == ["attend_expanded", "attend_absorbed", "attend_expanded"]


@pytest.mark.parametrize("name", ["dense", "four"])
def test_chunk_has_the_same_bits_beside_any_others(name: str) -> None:
    spec = SPECS[name]
    tokens = random_tokens(sum(LENGTHS), spec)
    results = []
    for work in ([(0, 3, 4)], STEPS["chunks and decode"]):
        new, stored, layout, _ = paged_step(tokens, work)
        results.append(attend_paged(new, stored, layout, spec)[:4])
    assert torch.equal(*results)


def test_decode_reads_only_the_latents_it_keeps() -> None:
    spec = sparse(4)
    tokens = random_tokens(sum(LENGTHS), spec)
    new, stored, layout, _ = paged_step(tokens, [(9, 13, 1)])
    expected = attend_paged(new, stored, layout, spec)
    kept = paged.select(new.index, stored["index_keys"][layout.slots_BS[0]], 4)[0]
    stored["latent"][layout.slots_BS[0][~kept]] = torch.nan
    assert kept.sum() == 4
    assert torch.equal(attend_paged(new, stored, layout, spec), expected)


def test_top_k_of_the_length_or_more_is_dense_attention_exactly() -> None:
    tokens = random_tokens(sum(LENGTHS), sparse(14))
    dense = MLASpec(3, 16, 8, 4, 6)
    plain = cut(tokens, list(range(sum(LENGTHS))))
    assert torch.equal(
        attend_packed(tokens, LENGTHS, sparse(14)), attend_packed(plain, LENGTHS, dense)
    )
    for work in STEPS.values():
        new, stored, layout, _ = paged_step(tokens, work)
        assert torch.equal(
            attend_paged(new, stored, layout, sparse(14)), attend_paged(new, stored, layout, dense)
        )
