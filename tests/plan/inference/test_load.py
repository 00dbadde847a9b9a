from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.inference.support import FP8, make_model
from weft.core.errors import ConfigError, ResourceError
from weft.plan.inference.load import (
    Traffic,
    estimate_closed_loop,
    estimate_max_load,
    max_running,
)
from weft.plan.simulator.events import simulate_fleet
from weft.plan.simulator.fleet import Fleet, Pool
from weft.plan.work import Work
from weft.plan.workload.arrivals import Content, fixed_content
from weft.plan.workload.lengths import FixedLength, UniformLength
from weft.plan.workload.source import ClosedLoop
from weft.sched.config import SchedulerConfig

TRAFFIC = Traffic(512, 256)


def test_one_client_waits_for_nobody():
    model = make_model()
    estimate = estimate_closed_loop(model, TRAFFIC, num_clients=1)
    step_s = model.seconds(Work.decode(1, TRAFFIC.mean_context))
    assert estimate.tpot_s == pytest.approx(step_s)
    prefill_s = model.seconds(Work.prefill(1, 512), graphs=False)
    assert estimate.ttft_s == pytest.approx(
        model.constants.request_s + prefill_s, rel=0.2, abs=step_s
    )


@settings(max_examples=25, deadline=None)
@given(clients=st.integers(1, 200), more=st.integers(1, 200))
def test_more_clients_wait_longer_and_get_more_done(clients, more):
    model = make_model()
    few = estimate_closed_loop(model, TRAFFIC, num_clients=clients)
    many = estimate_closed_loop(model, TRAFFIC, num_clients=clients + more)
    assert many.tpot_s >= few.tpot_s
    assert many.output_tokens_per_s >= 0.99 * few.output_tokens_per_s


def test_clients_beyond_the_cache_wait_in_line():
    model = make_model("Llama-3.1-8B", "L40S")
    traffic = Traffic(4000, 4000)
    limit = max_running(model, traffic)
    full = estimate_closed_loop(model, traffic, num_clients=limit)
    over = estimate_closed_loop(model, traffic, num_clients=3 * limit)
    assert over.num_running == full.num_running == limit
    assert over.output_tokens_per_s == pytest.approx(full.output_tokens_per_s)
    assert over.ttft_s > full.latency_s


def test_max_load_is_the_closed_loop_at_its_limit():
    model, traffic = make_model(), Traffic(1000, 1000)
    peak = estimate_max_load(model, traffic)
    clients = max_running(model, traffic)
    loop = estimate_closed_loop(model, traffic, num_clients=clients)
    assert peak == loop


def test_cached_prompts_are_cheaper():
    model = make_model()
    cached = dataclasses.replace(TRAFFIC, num_cached_tokens=448)
    bare, hit = (estimate_closed_loop(model, t, num_clients=16) for t in (TRAFFIC, cached))
    assert hit.prompt_s < 0.7 * bare.prompt_s
    assert hit.ttft_s < bare.ttft_s


def test_smaller_steps_cut_a_prompt_in_more_pieces():
    model = make_model()
    chunked = dataclasses.replace(TRAFFIC, max_tokens_per_step=32)
    whole, pieces = (estimate_closed_loop(model, t, num_clients=16) for t in (TRAFFIC, chunked))
    assert pieces.prompt_s > whole.prompt_s


def test_prompts_that_go_first_come_in_bursts():
    model = make_model()
    first = dataclasses.replace(TRAFFIC, prompts_first=True)
    shared, bursts = (estimate_closed_loop(model, t, num_clients=64) for t in (TRAFFIC, first))
    assert bursts.ttft_s > shared.ttft_s


def test_the_closed_form_agrees_with_the_simulated_closed_loop():
    """Same step model, the real scheduler: pace within 10 %, throughput within 10 %."""
    model = make_model("Llama-3.1-8B", "H100")
    traffic = Traffic(512, 128, max_tokens_per_step=2048)
    content = Content(FixedLength(512), UniformLength(96, 160))
    loop = ClosedLoop(content, num_clients=16, num_requests=160, ramp_s=1.0)
    config = SchedulerConfig(
        num_blocks=20_000, max_context=4096, max_tokens_per_step=2048, max_num_sequences=64
    )
    run = simulate_fleet(loop, Fleet((Pool(model, config),)))
    estimate = estimate_closed_loop(model, traffic, num_clients=16)
    assert estimate.tpot_s == pytest.approx(run.mean("tpot_s"), rel=0.1)
    assert estimate.output_tokens_per_s == pytest.approx(run.tokens_per_s, rel=0.1)


@pytest.mark.parametrize(
    ("num_prompt", "num_output", "clients", "budget"),
    [(512, 128, 16, 2048), (1024, 256, 64, 8192), (4096, 256, 16, 8192)],
)
def test_first_tokens_agree_with_the_simulated_run(num_prompt, num_output, clients, budget):
    """The real scheduler, all clients starting at once, lengths apart: mean within 15 %."""
    model = make_model("Llama-3.1-8B", "H100")
    lengths = UniformLength(8 * num_output // 10, 12 * num_output // 10)
    content = Content(FixedLength(num_prompt), lengths)
    loop = ClosedLoop(content, num_clients=clients, num_requests=10 * clients)
    config = SchedulerConfig(
        num_blocks=40_000, max_context=8192, max_tokens_per_step=budget, max_num_sequences=64
    )
    run = simulate_fleet(loop, Fleet((Pool(model, config),)))
    traffic = Traffic(num_prompt, num_output, max_tokens_per_step=budget, num_steps_ahead=0)
    estimate = estimate_closed_loop(model, traffic, num_clients=clients)
    waited_s = estimate.ttft_s - model.constants.request_s  # the simulator has no transport
    assert waited_s == pytest.approx(run.mean("ttft_s"), rel=0.15)


def test_first_tokens_wait_for_what_came_with_them():
    model = make_model()
    plain, *later = (
        estimate_closed_loop(model, traffic, num_clients=64).ttft_s
        for traffic in (
            TRAFFIC,
            dataclasses.replace(TRAFFIC, prompts_together=True),
            dataclasses.replace(TRAFFIC, num_steps_ahead=2),
            dataclasses.replace(TRAFFIC, requests_per_client=2),
        )
    )
    assert all(one > plain for one in later)


def test_an_engine_that_does_not_compile_answers_later_at_the_same_pace():
    model = make_model()
    eager = dataclasses.replace(model, compiled=False)
    fused, unfused = (estimate_closed_loop(one, TRAFFIC, num_clients=8) for one in (model, eager))
    assert unfused.ttft_s > fused.ttft_s
    assert unfused.tpot_s == fused.tpot_s
    assert unfused.output_tokens_per_s == fused.output_tokens_per_s


def test_a_request_that_never_fits_is_refused_with_numbers():
    model = make_model("Llama-3.1-70B", "H100", 1, storage=FP8)
    with pytest.raises(ResourceError):
        estimate_max_load(model, Traffic(1000, 1000))
    with pytest.raises(ResourceError, match="does not fit into a cache"):
        estimate_max_load(make_model("Llama-3.1-8B", "L40S"), Traffic(500_000, 10))


def test_impossible_traffic_is_refused():
    for make in (
        lambda: Traffic(10, 0),
        lambda: Traffic(10, 5, num_cached_tokens=10),
        lambda: Traffic(10, 5, requests_per_client=0),
        lambda: Traffic(10, 5, num_steps_ahead=-1),
        lambda: estimate_closed_loop(make_model(), TRAFFIC, num_clients=0),
    ):
        with pytest.raises(ConfigError):
            make()


def test_content_and_traffic_speak_of_the_same_lengths():
    (arrival,) = ClosedLoop(fixed_content(512, 256), 1, 1).source().first()
    assert (arrival.num_prompt_tokens, arrival.num_output_tokens) == (
        TRAFFIC.num_prompt_tokens, TRAFFIC.num_output_tokens,
    )  # fmt: skip
