from __future__ import annotations

import pytest

from tests.plan.inference.support import make_model
from weft.core.errors import ConfigError
from weft.plan.inference.static import estimate_static
from weft.plan.work import Work


def test_a_batch_is_one_prefill_and_a_step_per_further_token():
    model = make_model()
    estimate = estimate_static(model, batch=8, num_prompt_tokens=100, num_output_tokens=3)
    prefill_s = model.seconds(Work.prefill(8, 100), graphs=False)
    decode_s = model.seconds(Work.decode(8, 102))
    assert estimate.prefill_s == prefill_s
    assert estimate.duration_s == pytest.approx(prefill_s + 2 * decode_s)
    assert estimate.output_tokens_per_s == pytest.approx(24 / estimate.duration_s)


def test_the_middle_of_the_output_stands_for_all_of_it():
    model = make_model()
    estimate = estimate_static(model, batch=32, num_prompt_tokens=500, num_output_tokens=401)
    steps = [model.seconds(Work.decode(32, 500 + i)) for i in range(1, 401)]
    assert estimate.decode_step_s == pytest.approx(sum(steps) / 400, rel=1e-3)


def test_rate_grows_with_the_batch_and_less_than_in_proportion():
    rates = [
        estimate_static(
            make_model(), batch=batch, num_prompt_tokens=100, num_output_tokens=100
        ).output_tokens_per_s
        for batch in (1, 2, 64)
    ]
    assert rates[0] < rates[1] < rates[2] < 64 * rates[0]


def test_data_parallel_groups_share_the_batch():
    one = make_model("Llama-3.1-8B")
    four = make_model("Llama-3.1-8B", num_devices=4, tensor=1, data=4)
    work = {"num_prompt_tokens": 64, "num_output_tokens": 64}
    single = estimate_static(one, batch=4, **work).output_tokens_per_s
    assert estimate_static(four, batch=16, **work).output_tokens_per_s == pytest.approx(4 * single)


def test_an_empty_batch_is_refused():
    with pytest.raises(ConfigError, match="batch of 0"):
        estimate_static(make_model(), batch=0, num_prompt_tokens=1, num_output_tokens=1)
