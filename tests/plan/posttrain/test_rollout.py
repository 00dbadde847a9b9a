"""Rollouts: everything is asked at once, and the longest sample ends it."""

from __future__ import annotations

import pytest

from weft.core.errors import ResourceError
from weft.plan.hardware.cluster import Cluster
from weft.plan.inference.deployment import Deployment
from weft.plan.inference.step import StepModel
from weft.plan.models import public_model
from weft.plan.posttrain.rollout import rollout
from weft.plan.work import Segment, Work
from weft.plan.workload.lengths import LogNormalLength


@pytest.fixture(scope="module")
def model() -> StepModel:
    return StepModel(Deployment(public_model("llama-3.1-8b"), Cluster.parse("H100")))


def test_one_sample_is_a_prompt_and_its_steps(model: StepModel):
    found = rollout(model, 100, [3])
    step_s = model.seconds(Work((Segment(1, 101, 1),), num_logits=1))
    assert found.prompt_s == pytest.approx(model.seconds(Work((Segment(100, 0, 1),))))
    assert found.seconds == pytest.approx(found.prompt_s + 3 * step_s)
    assert (found.num_tokens, found.max_running) == (3, 1)


def test_samples_that_fit_together_run_together(model: StepModel):
    alone = rollout(model, 256, [512])
    many = rollout(model, 256, [512] * 32)
    assert many.max_running == 32
    assert alone.seconds < many.seconds < 4 * alone.seconds
    assert many.tail_s == 0.0


def test_a_cache_that_holds_half_takes_about_two_rounds():
    model = StepModel(Deployment(public_model("llama-3.1-8b"), Cluster.parse("H100")))
    capacity = model.deployment.kv_capacity_tokens()
    lengths = [8192] * (2 * capacity // (1024 + 4096))
    found = rollout(model, 1024, lengths)
    assert found.max_running <= capacity // (1024 + 4096) + 1
    once = rollout(model, 1024, lengths[: found.max_running])
    assert found.seconds == pytest.approx(2 * once.seconds, rel=0.15)


def test_a_group_computes_its_prompt_once(model: StepModel):
    apart = rollout(model, 2048, [64] * 16)
    together = rollout(model, 2048, [64] * 16, group_size=16)
    assert together.prompt_s == pytest.approx(apart.prompt_s / 16, rel=0.1)


def test_long_samples_make_a_tail(model: StepModel):
    even = rollout(model, 256, [1024] * 64)
    uneven = rollout(model, 256, [512] * 60 + [8704] * 4)
    assert sum([512] * 60 + [8704] * 4) == 1024 * 64
    assert uneven.seconds > 2 * even.seconds
    assert uneven.tail_s > 0.5 * uneven.seconds
    assert even.tail_s == 0.0


def test_a_sample_longer_than_the_cache_is_refused(model: StepModel):
    with pytest.raises(ResourceError, match="longest sample"):
        rollout(model, 256, [10_000_000])


def test_drawn_lengths_all_come_out(model: StepModel):
    import numpy as np

    lengths = LogNormalLength(300, 0.8, 4096).sample(np.random.default_rng(0), 200)
    found = rollout(model, 128, lengths.tolist(), group_size=8)
    assert found.num_tokens == int(lengths.sum())
    assert found.seconds > 0
