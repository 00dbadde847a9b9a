"""Guesses that a grammar refuses are not verified, and what is kept stays a draft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.engine.features.support import (
    SEEDED,
    completions,
    config,
    requests,
    tiny,
    tokenizer,
)
from weft.engine.core import EngineCore
from weft.engine.speculation.config import SpeculationConfig
from weft.engine.speculation.within_grammar import within_grammar
from weft.engine.trees import parents_of, paths_of
from weft.sched.loop import VirtualClock
from weft.sched.plan import Draft
from weft.spec.structured import Regex


def rising(tokens: Sequence[int]) -> int:
    """Take runs of rising tokens above 2."""
    num, before = 0, 2
    for token in tokens:
        if token <= before:
            break
        num, before = num + 1, token
    return num


def cut(draft: Draft, *, keeps_refused: bool = False) -> Draft:
    return within_grammar(draft, rising, keeps_refused=keeps_refused)


def test_a_chain_ends_where_the_grammar_refuses():
    assert cut(Draft((3, 5, 4, 6))) == Draft((3, 5))
    assert cut(Draft((3, 5, 4, 6)), keeps_refused=True) == Draft((3, 5, 4))
    assert cut(Draft((1, 3))) == Draft(())
    assert cut(Draft((3, 4, 5))) == Draft((3, 4, 5))
    assert cut(Draft((3, 4, 5)), keeps_refused=True) == Draft((3, 4, 5))


def test_a_tree_loses_the_branches_that_the_grammar_refuses():
    tree = Draft((3, 1, 4, 9, 2), (-1, -1, 0, 1, 2))
    assert cut(tree) == Draft((3, 4), (-1, 0))
    assert cut(tree, keeps_refused=True) == Draft((3, 1, 4, 2), (-1, -1, 0, 2))


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    tokens = draw(st.lists(st.integers(0, 9), min_size=1, max_size=8))
    parents = tuple(draw(st.integers(-1, place - 1)) for place in range(len(tokens)))
    return Draft(tuple(tokens), parents if draw(st.booleans()) else ())


def runs(draft: Draft) -> list[tuple[int, ...]]:
    return [tuple(draft.tokens[guess] for guess in path) for path in paths_of(draft)]


@given(drafts())
def test_what_is_kept_are_the_runs_that_the_grammar_takes(draft: Draft):
    kept = cut(draft)
    assert runs(kept) == [run for run in runs(draft) if rising(run) == len(run)]
    assert all(parent < guess for guess, parent in enumerate(parents_of(kept)))
    wider = runs(cut(draft, keeps_refused=True))
    assert wider == [run for run in runs(draft) if rising(run[:-1]) == len(run) - 1]


def test_fewer_rows_are_verified_for_the_same_tokens():
    """The drafting model does not know the grammar, so most of its guesses are refused."""
    pattern = Regex("[a-z]{3,9}( the)? [0-9]{2,4}")
    params = [replace(SEEDED, structured=pattern, ignore_eos=False)] * 4

    def serve(acceptance: str, *, with_filter: bool) -> tuple[list, int]:
        speculation = SpeculationConfig("draft", 4, acceptance=acceptance, switch=None)
        chosen = config(speculation=speculation)
        core = EngineCore(tiny(), tokenizer(), chosen, clock=VirtualClock(), drafter=tiny())
        if not with_filter:
            core.speculator._allowed = lambda drafts, view: drafts
        done = completions(core, requests(params, [[5, 7], [11], [13, 17], [19]]))
        assert core.runner.num_failed_proposals == 0
        return [one.tokens for one in done], core.stats().speculation.num_draft_tokens

    cut_tokens, num_cut = serve("same_draw", with_filter=True)
    tokens, num_guesses = serve("same_draw", with_filter=False)
    assert cut_tokens == tokens
    assert num_cut < num_guesses / 2
    # The refused guess itself stays where it was drawn at random, so tokens stay as they are.
    cut_tokens, num_cut = serve("rejection", with_filter=True)
    tokens, num_guesses = serve("rejection", with_filter=False)
    assert cut_tokens == tokens
    assert num_cut < num_guesses
