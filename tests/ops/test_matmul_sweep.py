"""The search for the fastest product."""

from __future__ import annotations

import math

import pytest
import torch

from weft.core.errors import ConfigError
from weft.ops.matmul_sweep import Shape, matmul_rate, sweep

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Stopwatch:
    """A clock on which every measurement takes a second."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def measure(self, shape: Shape) -> float:
        """Return a rate with one peak, at 32 x 64 x 16."""
        self.now_s += 1.0
        return 100.0 - sum(abs(math.log2(a / b)) for a, b in zip(shape, (32, 64, 16), strict=True))


def test_best_so_far_never_falls_and_is_the_best():
    clock = Stopwatch()
    trials = list(sweep(SIZES, clock.measure, budget_s=100.0, clock=clock))
    assert len(trials) == 100
    best = [trial.best for trial in trials]
    assert best == sorted(best)
    assert best[-1] == max(trial.flops for trial in trials)
    assert len({trial.shape for trial in trials}) == 100, "no shape is measured twice"


def test_the_peak_is_climbed_within_a_fraction_of_all_shapes():
    clock = Stopwatch()
    *_, last = sweep(SIZES, clock.measure, budget_s=150.0, clock=clock)
    assert last.best_shape == (32, 64, 16)


def test_a_small_ladder_is_tried_whole_and_once():
    clock = Stopwatch()
    trials = list(sweep((8, 16), clock.measure, budget_s=1e9, clock=clock))
    assert len(trials) == len({trial.shape for trial in trials}) == 8


def test_one_shape_is_measured_however_short_the_time():
    clock = Stopwatch()
    assert len(list(sweep(SIZES, clock.measure, budget_s=0.0, clock=clock))) == 1


@pytest.mark.parametrize("sizes", [(), (0, 4)])
def test_impossible_ladders_are_refused(sizes: tuple[int, ...]):
    with pytest.raises(ConfigError):
        next(sweep(sizes, lambda shape: 1.0, budget_s=1.0))


def test_a_real_product_has_a_rate():
    assert matmul_rate(torch.float32)((32, 48, 64)) > 0.0
