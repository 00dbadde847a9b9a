from __future__ import annotations

import dataclasses
import math
import random
import statistics

import pytest

from weft.core.errors import ConfigError, ContextLengthError
from weft.plan.simulate import Arrival, LinearStepTime, Simulation, simulate
from weft.sched.config import SchedulerConfig
from weft.sched.plan import StepItem, StepPlan

CONFIG = SchedulerConfig(num_blocks=512, max_context=512, max_num_sequences=8, seed=0)
STEP_TIME = LinearStepTime(base_s=0.01, per_token_s=1e-4, per_context_token_s=1e-6)


def workload(num: int = 60, *, rate: float = 20.0, seed: int = 0) -> list[Arrival]:
    rng, time_s, arrivals = random.Random(seed), 0.0, []
    for _ in range(num):
        time_s += rng.expovariate(rate)
        arrivals.append(Arrival(time_s, rng.randint(1, 200), rng.randint(1, 40)))
    return arrivals


def run(arrivals: list[Arrival], **changes: object) -> Simulation:
    config = dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
    return simulate(arrivals, scheduler=config, step_time=STEP_TIME)


def test_linear_step_time_counts_computed_and_context_tokens():
    items = (
        StepItem(0, (7,), 99, (), True),  # one token on a context of 100
        StepItem(1, (1, 2, 3), 0, (), False),  # the first three of a prompt
    )
    step_time = LinearStepTime(base_s=1.0, per_token_s=0.1, per_context_token_s=0.001)
    assert step_time(StepPlan(0, items)) == pytest.approx(1.0 + 0.4 + 0.103)


def test_one_request_takes_a_prompt_step_and_a_step_per_further_token():
    result = simulate(
        [Arrival(5.0, 10, 4)], scheduler=CONFIG, step_time=LinearStepTime(0.5, per_token_s=0.1)
    )
    (request,) = result.requests
    assert request.ttft_s == pytest.approx(0.5 + 10 * 0.1)
    assert request.tpot_s == pytest.approx(0.6)
    assert request.latency_s == pytest.approx(1.5 + 3 * 0.6)
    assert result.duration_s == pytest.approx(request.latency_s)
    assert result.tokens_per_s == pytest.approx(4 / 3.3)


def test_same_workload_gives_the_same_simulation():
    assert run(workload()) == run(workload())


def test_order_of_the_arrivals_in_the_list_does_not_matter():
    shuffled = random.Random(1).sample(workload(), 60)
    assert run(shuffled) == run(workload())


@pytest.mark.parametrize(
    "changes",
    [{}, {"max_tokens_per_step": 16}, {"num_blocks": 33}, {"enable_prefix_cache": False}],
    ids=["plain", "chunked", "preempting", "uncached"],
)
def test_requests_and_tokens_are_conserved(changes):
    arrivals = workload()
    result = run(arrivals, **changes)
    assert [request.arrival for request in result.requests] == arrivals
    for request in result.requests:
        assert request.num_output_tokens == request.arrival.num_output_tokens
        assert request.arrival.time_s < request.first_token_s <= request.finish_s
    counters = result.stats.counters
    num_drawn = sum(arrival.num_output_tokens for arrival in arrivals)
    num_given = sum(arrival.num_prompt_tokens for arrival in arrivals)
    assert counters.num_generated_tokens == num_drawn
    assert counters.num_prompt_tokens == num_given
    # The last token of each request is drawn but never computed; preemption computes some twice.
    needed = num_given + num_drawn - len(arrivals) - counters.num_prefix_hit_tokens
    assert counters.num_computed_tokens >= needed
    assert (counters.num_computed_tokens == needed) == (counters.num_preemptions == 0)
    assert result.stats.num_used_blocks == 0


def test_a_small_cache_preempts_and_is_slower():
    small, large = run(workload(), num_blocks=33), run(workload())
    assert small.stats.counters.num_preemptions > 0
    assert small.duration_s > large.duration_s


def test_a_full_queue_refuses_and_the_rest_is_served():
    burst = [Arrival(0.0, 10, 5) for _ in range(20)]
    result = run(burst, max_num_sequences=2, max_waiting=6)
    assert len(result.served) == 6
    assert result.stats.counters.num_refused == 14
    assert all(request.num_output_tokens == 0 for request in result.requests if request.refused)
    assert result.percentile("latency_s", 100) == max(r.latency_s for r in result.served)


def test_a_shared_beginning_shortens_the_time_to_first_token():
    def median_ttft_s(num_shared_tokens: int) -> float:
        arrivals = [Arrival(float(i), 200, 4, num_shared_tokens) for i in range(20)]
        result = run(arrivals)
        assert [r.num_cached_tokens for r in result.requests[1:]] == [num_shared_tokens] * 19
        return result.percentile("ttft_s", 50)

    saved_s = median_ttft_s(0) - median_ttft_s(160)
    assert saved_s == pytest.approx(160 * STEP_TIME.per_token_s)


def test_groups_do_not_share_each_others_beginning():
    arrivals = [Arrival(float(i), 64, 2, num_shared_tokens=48, group=i) for i in range(5)]
    assert all(request.num_cached_tokens == 0 for request in run(arrivals).requests)


def test_mean_wait_of_an_m_d_1_queue_is_that_of_the_closed_form():
    """Pollaczek-Khinchine for fixed service time D and load r: mean wait = r D / (2 (1 - r))."""
    service_s, load, num_runs, num_arrivals, num_warm = 1.0, 0.6, 16, 800, 100
    config = dataclasses.replace(CONFIG, max_num_sequences=1, max_waiting=num_arrivals)
    means = []
    for seed in range(num_runs):
        rng, time_s, arrivals = random.Random(seed), 0.0, []
        for _ in range(num_arrivals):
            time_s += rng.expovariate(load / service_s)
            arrivals.append(Arrival(time_s, 8, 1))  # one step: the prompt, which draws its token
        result = simulate(arrivals, scheduler=config, step_time=LinearStepTime(service_s))
        means.append(statistics.mean(r.ttft_s - service_s for r in result.requests[num_warm:]))
    expected = load * service_s / (2 * (1 - load))
    t_99 = 2.947  # two-sided 99 % quantile of Student's t, 15 degrees of freedom
    half_width = t_99 * statistics.stdev(means) / math.sqrt(num_runs)
    assert half_width < 0.15 * expected, "the band is too wide to show anything"
    assert abs(statistics.mean(means) - expected) < half_width


def test_a_single_token_has_no_time_per_output_token():
    result = run([Arrival(0.0, 4, 1)])
    assert result.requests[0].tpot_s is None
    assert math.isnan(result.percentile("tpot_s", 50))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Arrival(0.0, 0, 1),
        lambda: Arrival(0.0, 1, 0),
        lambda: Arrival(-1.0, 1, 1),
        lambda: Arrival(0.0, 4, 1, num_shared_tokens=5),
        lambda: LinearStepTime(-1.0),
        lambda: run([]),
    ],
)
def test_impossible_workloads_are_refused_with_a_fix(make):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.fix


def test_a_prompt_that_can_never_fit_is_an_error_not_a_result():
    with pytest.raises(ContextLengthError):
        run([Arrival(0.0, 600, 1)])


def test_an_error_of_the_step_time_model_is_raised():
    def broken(plan: StepPlan) -> float:
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError):
        simulate([Arrival(0.0, 4, 1)], scheduler=CONFIG, step_time=broken)
