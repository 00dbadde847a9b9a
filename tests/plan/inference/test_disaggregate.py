from __future__ import annotations

import pytest

from tests.plan.inference.support import FP8, make_model
from weft.core.errors import ConfigError
from weft.plan.hardware.links import link
from weft.plan.inference.disaggregate import (
    Disaggregated,
    best_ratio,
    estimate_disaggregated,
    prefill_seconds,
    transfer_bytes,
)
from weft.plan.inference.load import Traffic, estimate_closed_loop
from weft.plan.work import Work

TRAFFIC = Traffic(4000, 500)


def pools(num_prefill: int = 1, num_decode: int = 1) -> Disaggregated:
    worker = make_model("Llama-3.1-70B", "H200", 2, storage=FP8)
    return Disaggregated(worker, num_prefill, worker, num_decode, link("ib-ndr"))


def test_one_client_pays_prompt_link_and_undisturbed_decoding():
    setup = pools()
    estimate = estimate_disaggregated(setup, TRAFFIC, num_clients=1)
    assert estimate.tpot_s == setup.decode.seconds(Work.decode(1, TRAFFIC.mean_context))
    parts_s = prefill_seconds(setup.prefill, TRAFFIC) + estimate.transfer_s
    assert estimate.ttft_s == pytest.approx(setup.prefill.constants.request_s + parts_s)
    # 4,000 tokens x 80 layers x 2 x 8 heads x 128 x 1 byte over two devices
    assert transfer_bytes(setup.prefill, TRAFFIC) == 4000 * 80 * 2 * 8 * 128 / 2


def test_little_s_law_holds_when_prefill_is_the_bottleneck():
    clients = 200
    estimate = estimate_disaggregated(pools(1, 4), TRAFFIC, num_clients=clients)
    assert estimate.prefill_busy == pytest.approx(1.0)
    latency_s = estimate.ttft_s + TRAFFIC.num_output_tokens * estimate.tpot_s
    assert estimate.requests_per_s * latency_s == pytest.approx(clients, rel=0.02)


def test_more_prefill_workers_shorten_the_wait_until_they_are_not_the_bottleneck():
    waits = [
        estimate_disaggregated(pools(num, 2), TRAFFIC, num_clients=64).ttft_s for num in (1, 2, 8)
    ]
    assert waits[0] > waits[1] > waits[2]


def test_outputs_keep_their_pace_whatever_the_prompts():
    together = estimate_closed_loop(pools().decode, TRAFFIC, num_clients=16)
    apart = estimate_disaggregated(pools(4, 1), TRAFFIC, num_clients=16)
    assert apart.tpot_s < together.tpot_s


def test_the_best_ratio_is_that_of_the_rates_by_brute_force():
    worker = make_model("Llama-3.1-70B", "H200", 2, storage=FP8)
    best = best_ratio(worker, worker, TRAFFIC, max_tpot_s=0.03, most_workers=12)
    assert best.num_prefill > best.num_decode  # long prompts, short answers
    lean = best_ratio(worker, worker, Traffic(200, 2000), max_tpot_s=0.03, most_workers=12)
    assert lean.num_prefill < lean.num_decode
    assert best.requests_per_s / (2 * (best.num_prefill + best.num_decode)) == pytest.approx(
        best.per_device
    )


def test_a_pace_nobody_keeps_is_refused_with_the_fastest():
    worker = make_model("Llama-3.1-70B", "H200", 2, storage=FP8)
    with pytest.raises(ConfigError, match="ms per token"):
        best_ratio(worker, worker, TRAFFIC, max_tpot_s=1e-3)


def test_clients_are_needed():
    with pytest.raises(ConfigError, match="num_clients is 0"):
        estimate_disaggregated(pools(), TRAFFIC, num_clients=0)
