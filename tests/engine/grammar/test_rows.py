"""Masks are filled while the forward pass runs, and are those of the moment they are asked for."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.engine.grammar.support import decode, start
from tests.engine.support import make_llm
from weft.engine.forward import StepForward
from weft.engine.grammar.rows import GrammarRows
from weft.engine.grammar.state import GrammarError
from weft.spec.sampling import SamplingParams
from weft.spec.structured import Choice, Regex

TOKENS = (b"a", b"b", b"c")
END = len(TOKENS) + 1
PATIENCE_S = 30.0


def make_rows(num: int = 3) -> GrammarRows:
    rows = GrammarRows()
    for id in range(num):
        rows.prepare(str(id), start(Regex("(abc)*"), *TOKENS, spare=1))
        rows.add(id, str(id), (END,))
    return rows


def test_begun_masks_are_those_asked_for():
    begun, plain = make_rows(), make_rows()
    for token in (0, 1, 2, 0):
        begun.begin([2, 7, 0, 1])
        for ids in ([1, 7], [0, 2]):  # in pieces and in another order
            places, bits = begun.masks(ids)
            wanted_places, wanted = plain.masks(ids)
            np.testing.assert_array_equal(places, wanted_places)
            np.testing.assert_array_equal(bits, wanted)
        for id in range(3):
            begun.record(id, token)
            plain.record(id, token)
    begun.close()


def test_a_mask_asked_for_again_behind_a_token_is_a_new_one():
    rows = make_rows(1)
    rows.begin([0])
    first = rows.masks([0])[1].copy()
    rows.record(0, 0)
    assert not np.array_equal(rows.masks([0])[1], first)
    rows.close()


def test_masks_of_a_step_that_failed_are_forgotten():
    rows, plain = make_rows(1), make_rows(1)
    rows.begin([0])
    rows.stop()  # its tokens were never drawn
    rows.record(0, 0)
    plain.record(0, 0)
    rows.begin([0])
    np.testing.assert_array_equal(rows.masks([0])[1], plain.masks([0])[1])
    rows.close()


def test_a_grammar_that_cannot_go_on_says_so_when_its_mask_is_asked_for():
    rows = GrammarRows()
    rows.prepare("0", start(Regex("ad"), *TOKENS, spare=1))
    rows.add(0, "0", (END,))
    rows.record(0, 0)
    rows.begin([0])
    with pytest.raises(GrammarError, match="cannot go on"):
        rows.masks([0])
    rows.close()


def test_masks_are_filled_during_the_forward_pass(monkeypatch: pytest.MonkeyPatch):
    running, filled = threading.Event(), threading.Event()
    run, compute = StepForward.run, GrammarRows._compute

    def slow_run(self, items):
        running.set()
        assert filled.wait(PATIENCE_S), "the forward pass ended before the masks were begun"
        return run(self, items)

    def slow_compute(self, states):
        assert running.wait(PATIENCE_S), "masks were waited for before the forward pass"
        found = compute(self, states)
        filled.set()
        return found

    monkeypatch.setattr(StepForward, "run", slow_run)
    monkeypatch.setattr(GrammarRows, "_compute", slow_compute)
    params = SamplingParams(structured=Choice(("yes", "no")), temperature=0.0)
    (completion,) = make_llm().generate([[1, 2, 3]], params)
    assert decode(completion) in ("yes", "no")
