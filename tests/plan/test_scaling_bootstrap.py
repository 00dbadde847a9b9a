"""Intervals of fitted scaling laws."""

from __future__ import annotations

from itertools import product

import pytest

from weft.core.errors import ConfigError
from weft.plan.scaling import CHINCHILLA
from weft.plan.scaling_bootstrap import bootstrap

RUNS = [(n, d) for n, d in product((1e8, 4e8, 1.6e9, 6.4e9), (2e9, 8e9, 3.2e10))]


def columns() -> tuple[list[float], list[float], list[float]]:
    sizes, tokens = (list(one) for one in zip(*RUNS, strict=True))
    return sizes, tokens, [CHINCHILLA.loss(n, d) for n, d in RUNS]


def test_exact_losses_leave_no_doubt_about_the_law() -> None:
    low, high = bootstrap(*columns(), num_resamples=2)["irreducible"]
    assert low == pytest.approx(CHINCHILLA.irreducible, rel=0.02)
    assert high == pytest.approx(CHINCHILLA.irreducible, rel=0.02)


def test_no_resamples_are_refused() -> None:
    with pytest.raises(ConfigError, match="resamples"):
        bootstrap(*columns(), num_resamples=0)
