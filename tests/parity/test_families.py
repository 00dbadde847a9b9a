"""Every family against transformers: both directions, logits, gradients, greedy tokens.

The cases marked ``sample`` run in the default tier, all of them with ``-m parity``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from tests.parity import harness
from tests.parity.cases import CASES
from tests.parity.harness import Case
from weft.models.decoder import Decoder

pytest.importorskip("transformers")

Pair = tuple[Case, nn.Module, Decoder]


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if case.sample else pytest.mark.parity)
        for name, case in sorted(CASES.items())
    ]
)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    case = CASES[request.param]
    theirs = harness.reference(case)
    return case, theirs, harness.load_ours(theirs, tmp_path / "theirs")


def test_logits(pair: Pair) -> None:
    harness.check_logits(*pair)


def test_gradients(pair: Pair, tmp_path: Path) -> None:
    harness.check_gradients(*pair, tmp_path / "gradients")


def test_the_way_back(pair: Pair, tmp_path: Path) -> None:
    _, theirs, ours = pair
    harness.check_way_back(theirs, ours, tmp_path / "back")


def test_packed_equals_paged(pair: Pair) -> None:
    case, _, ours = pair
    harness.check_paged(case, ours)


def test_greedy_tokens(pair: Pair) -> None:
    _, theirs, ours = pair
    harness.check_greedy(theirs, ours)
