from __future__ import annotations

import pytest

from tests.plan.inference.support import FP8, make_model
from weft.core.errors import ConfigError
from weft.plan.inference.load import Traffic
from weft.plan.inference.price import token_price
from weft.plan.work import Work

TRAFFIC = Traffic(1024, 1024)


def price(batch: int, cost: float = 3.6):
    model = make_model("Llama-3.1-70B", "H200", 2, storage=FP8)
    return token_price(model, TRAFFIC, batch=batch, device_hour_cost=cost)


def test_output_costs_more_and_most_in_small_batches():
    """S04, PM16: one prompt pass against many passes that read all weights."""
    ratios = [price(batch).ratio for batch in (1, 8, 64)]
    assert ratios[0] > ratios[1] > ratios[2] > 1.0
    assert ratios[0] > 50


def test_price_is_devices_times_time():
    model = make_model("Llama-3.1-70B", "H200", 2, storage=FP8)
    step_s = model.seconds(Work.decode(16, TRAFFIC.mean_context))
    assert price(16).output_cost == pytest.approx(step_s / 16 * 2 * 3.6 / 3600 * 1e6)
    assert price(16, cost=7.2).output_cost == pytest.approx(2 * price(16).output_cost)


def test_energy_is_below_the_thermal_design_power():
    model = make_model("Llama-3.1-70B", "H200", 2, storage=FP8)
    step_s = model.seconds(Work.decode(16, TRAFFIC.mean_context))
    limit_kwh = step_s / 16 * 2 * 700 / 3.6e6 * 1e6
    assert 0.3 * limit_kwh < price(16).output_kwh < limit_kwh


def test_a_batch_is_needed():
    with pytest.raises(ConfigError, match="batch 0"):
        price(0)
