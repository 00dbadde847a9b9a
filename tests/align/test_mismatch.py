from __future__ import annotations

import math

import pytest
import torch

from weft.align.mismatch import correction_weights, measure_mismatch

# Ratios pi / mu of 1, 1/4, 4.
BEHAVIOUR = torch.tensor([-1.0, -1.0, -2.0])
TRAINER = BEHAVIOUR + torch.tensor([0.0, math.log(0.25), math.log(4.0)])


def test_figures_equal_an_independent_formula():
    found = measure_mismatch(TRAINER, BEHAVIOUR)
    assert found.num_tokens == 3
    assert found.max_abs == pytest.approx(math.log(4), rel=1e-6)
    assert found.mean_abs == pytest.approx(2 * math.log(4) / 3, rel=1e-6)
    assert found.k1 == pytest.approx(0.0, abs=1e-7)
    # (0 + (1/4 - 1 + ln 4) + (4 - 1 - ln 4)) / 3
    assert found.k3 == pytest.approx(2.25 / 3, rel=1e-6)
    assert found.ess == pytest.approx(5.25**2 / (3 * (1 + 1 / 16 + 16)), rel=1e-6)
    assert found.outside_band == pytest.approx(2 / 3)


def test_equal_log_probs_have_no_mismatch():
    found = measure_mismatch(BEHAVIOUR, BEHAVIOUR)
    assert (found.max_abs, found.k1, found.k3, found.ess, found.outside_band) == (0, 0, 0, 1, 0)


def test_metrics_are_named_for_the_log():
    names = ("num_tokens", "max_abs", "mean_abs", "k1", "k3", "ess", "outside_band")
    metrics = measure_mismatch(TRAINER, BEHAVIOUR).as_metrics()
    assert set(metrics) == {f"mismatch_{name}" for name in names}


@pytest.mark.parametrize(
    ("correction", "expected"),
    [("none", [1.0, 1.0, 1.0]), ("tis", [1.0, 0.25, 2.0]), ("mis", [1.0, 0.0, 0.0])],
)
def test_corrections_bound_the_ratio(correction, expected):
    weights = correction_weights(TRAINER, BEHAVIOUR, correction)
    torch.testing.assert_close(weights, torch.tensor(expected))


@pytest.mark.parametrize("correction", ["none", "tis", "mis"])
def test_on_policy_every_weight_is_one_and_no_gradient_flows(correction):
    trainer = BEHAVIOUR.clone().requires_grad_()
    weights = correction_weights(trainer, BEHAVIOUR, correction)
    assert (weights == 1).all()
    assert not weights.requires_grad
