"""Parallel training on modelled devices: the numbers of one device, and closed-form times."""

from __future__ import annotations

import numpy as np
import pytest

from weft.core.errors import ConfigError
from weft.plan.course.virtual_devices import (
    VirtualDevices,
    forward_pipeline,
    forward_sequence_parallel,
    forward_tensor_parallel,
    train_data_parallel,
)
from weft.plan.hardware.links import Link

RATE = 1e9
FREE = Link("free", bandwidth=1e30)
SLOW = Link("slow", bandwidth=1e8)
RNG = np.random.default_rng(0)
X, W1, W2 = RNG.normal(size=(16, 8)), RNG.normal(size=(8, 32)), RNG.normal(size=(32, 8))


def devices(count: int, link: Link = FREE) -> VirtualDevices:
    return VirtualDevices(count, RATE, link)


@pytest.mark.parametrize("count", [2, 4])
def test_data_parallel_gradients_are_those_of_one_device(count: int):
    one = train_data_parallel(devices(1), X, W1, W2)
    many = train_data_parallel(devices(count), X, W1, W2)
    np.testing.assert_allclose(many.w1_IF, one.w1_IF, rtol=1e-12)
    np.testing.assert_allclose(many.w2_FO, one.w2_FO, rtol=1e-12)


@pytest.mark.parametrize("forward", [forward_tensor_parallel, forward_sequence_parallel])
@pytest.mark.parametrize("count", [2, 4])
def test_cut_forward_passes_give_the_same_output(forward, count: int):
    expected = np.maximum(X @ W1, 0.0) @ W2
    np.testing.assert_allclose(forward(devices(count), X, W1, W2), expected, rtol=1e-12)


def test_a_pipeline_gives_the_output_of_all_layers():
    layers = [RNG.normal(size=(8, 8)) for _ in range(4)]
    expected = X
    for layer in layers:
        expected = np.maximum(expected @ layer, 0.0)
    np.testing.assert_allclose(
        forward_pipeline(devices(4), X, layers, num_micro=8), expected, rtol=1e-12
    )


@pytest.mark.parametrize("num_micro", [1, 4, 16])
def test_a_pipeline_takes_micro_batches_plus_stages_less_one(num_micro: int):
    layers = [RNG.normal(size=(8, 8)) for _ in range(4)]
    group = devices(4)
    forward_pipeline(group, X, layers, num_micro=num_micro)
    stage_s = 2 * (16 / num_micro) * 8 * 8 / RATE
    assert group.elapsed_s == pytest.approx((num_micro + 3) * stage_s)


def test_data_parallel_time_is_a_share_of_the_work_and_two_rings():
    one, four = devices(1), devices(4, SLOW)
    train_data_parallel(one, X, W1, W2)
    train_data_parallel(four, X, W1, W2)
    rings_s = sum(2 * 3 / 4 * weight.nbytes / SLOW.bandwidth for weight in (W1, W2))
    assert four.elapsed_s == pytest.approx(one.elapsed_s / 4 + rings_s)
    assert four.sent_bytes == 4 * 2 * 3 // 4 * (W1.nbytes + W2.nbytes)


def test_speed_ups_are_the_same_every_time():
    def speed_up(count: int) -> float:
        alone, together = devices(1), devices(count, Link("some", bandwidth=2e10))
        train_data_parallel(alone, X, W1, W2)
        train_data_parallel(together, X, W1, W2)
        return alone.elapsed_s / together.elapsed_s

    assert speed_up(4) == speed_up(4)
    assert 1.0 < speed_up(2) < 2.0
    assert speed_up(2) < speed_up(4) < 4.0


def test_uneven_cuts_are_refused():
    with pytest.raises(ConfigError, match="16 does not split into 3"):
        train_data_parallel(devices(3), X, W1, W2)
    with pytest.raises(ConfigError, match="2 layers for 4 devices"):
        forward_pipeline(devices(4), X, [W1, W2], num_micro=1)
