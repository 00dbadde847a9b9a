from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.plan.simulator.events import simulate_fleet
from weft.plan.simulator.fleet import Failure, Fleet, Pool, Transfer
from weft.plan.simulator.result import Simulation
from weft.plan.simulator.roles import BalanceRoles, ScaleWithLoad
from weft.plan.simulator.runner import LinearStepTime
from weft.plan.workload.arrival import Arrival
from weft.plan.workload.arrivals import Content, fixed_content, gamma_arrivals, poisson_arrivals
from weft.plan.workload.lengths import FixedLength, LogNormalLength
from weft.plan.workload.source import ClosedLoop, OpenLoop
from weft.sched.config import SchedulerConfig
from weft.sched.routing import LeastKV, LeastRequests, PrefixAware, RoundRobin, RoutingPolicy

CONFIG = SchedulerConfig(num_blocks=400, max_context=4096, max_num_sequences=16, seed=0)
STEP = LinearStepTime(base_s=0.01, per_token_s=2e-4, per_context_token_s=1e-6)
LINK = Transfer(bytes_per_token=1e5, bandwidth=1e9, start_s=1e-3)


FAILURES = st.tuples(st.floats(0.1, 5.0), st.integers(0, 2), st.floats(0.1, 3.0))


def mixed(num: int, **changes: object) -> Pool:
    return Pool(STEP, dataclasses.replace(CONFIG, **changes), num)  # type: ignore[arg-type]


def pools(num_prefill: int, num_decode: int) -> tuple[Pool, ...]:
    return Pool(STEP, CONFIG, num_prefill, "prefill"), Pool(STEP, CONFIG, num_decode, "decode")


def serve(arrivals: tuple[Arrival, ...], fleet: Fleet) -> Simulation:
    return simulate_fleet(OpenLoop(arrivals), fleet)


def assert_all_served(simulation: Simulation) -> None:
    for request in simulation.requests:
        assert not request.refused
        assert request.num_output_tokens == request.arrival.num_output_tokens
        assert request.arrival.time_s < request.first_token_s <= request.finish_s
    for replica in simulation.replicas:
        assert replica.stats.num_used_blocks == 0


# Replicas (W01).


def test_four_replicas_serve_a_burst_almost_four_times_as_fast():
    burst = tuple(Arrival(0.0, 100, 50) for _ in range(64))
    one, four = (serve(burst, Fleet((mixed(num),))) for num in (1, 4))
    assert_all_served(four)
    assert 3.5 < one.duration_s / four.duration_s <= 4.0
    assert four.max_over_mean_load == pytest.approx(1.0, abs=0.01)


def test_a_request_arriving_in_a_step_is_seen_when_it_ends():
    step = LinearStepTime(1.0)
    fleet = Fleet((Pool(step, CONFIG),))
    first, second = serve((Arrival(0.0, 4, 3), Arrival(0.5, 4, 1)), fleet).requests
    assert (first.first_token_s, second.first_token_s) == (1.0, 2.0)


@pytest.mark.parametrize("policy", [LeastRequests, LeastKV])
def test_looking_at_the_load_beats_round_robin_on_skewed_requests(policy):
    """W02: max over mean load falls. Every fourth request is long, so turns pile them up."""
    arrivals = tuple(
        Arrival(0.03 * i, 900 if i % 4 == 0 else 30, 150 if i % 4 == 0 else 8) for i in range(160)
    )
    naive, aware = (
        serve(arrivals, Fleet((mixed(4),), routing=kind)) for kind in (RoundRobin, policy)
    )
    assert naive.max_over_mean_load > 3.0
    assert aware.max_over_mean_load < 1.5
    assert aware.percentile("latency_s", 95) < naive.percentile("latency_s", 95)


def test_prefix_aware_routing_beats_round_robin_on_shared_prefixes():
    """S09: each replica's cache holds two of eight beginnings; turns ask it for all of them."""
    content = Content(FixedLength(1100), FixedLength(8), num_shared_tokens=1024, num_groups=8)
    arrivals = poisson_arrivals(content, num_requests=200, rate_per_s=8.0)
    results = {}
    policies: dict[str, Callable[[], RoutingPolicy]] = {"turn": RoundRobin, "prefix": PrefixAware}
    for name, routing in policies.items():
        results[name] = serve(arrivals, Fleet((mixed(4, num_blocks=300),), routing=routing))
        assert_all_served(results[name])
    missed = {name: 1 - result.stats.prefix_hit_rate for name, result in results.items()}
    assert missed["prefix"] < 0.4 * missed["turn"]
    assert results["prefix"].mean("ttft_s") < 0.6 * results["turn"].mean("ttft_s")


# Closed loop.


def test_a_closed_loop_keeps_its_clients_busy_and_never_more():
    loop = ClosedLoop(fixed_content(50, 20), num_clients=4, num_requests=40)
    simulation = simulate_fleet(loop, Fleet((mixed(1),)), keep_steps=True)
    assert_all_served(simulation)
    assert len(simulation.requests) == 40
    assert max(step.num_sequences + step.num_waiting for step in simulation.steps) == 4
    latency_s = simulation.mean("latency_s")
    # Little's law: clients = rate x latency.
    assert 40 / simulation.duration_s * latency_s == pytest.approx(4.0, rel=0.01)


# Prefill and decode apart.


def test_a_request_goes_from_prefill_over_the_link_to_decode():
    simulation = serve((Arrival(0.0, 160, 3),), Fleet(pools(1, 1), transfer=LINK))
    (request,) = simulation.requests
    prefill_s = 0.01 + 160 * 2e-4 + 160e-6
    assert request.replicas == (0, 1)
    assert request.first_token_s == pytest.approx(prefill_s)
    # The prompt's 10 whole blocks came along; one token is left to compute, then one more.
    decode_s = 2 * 0.01 + 2 * 2e-4 + (161 + 162) * 1e-6
    assert request.finish_s == pytest.approx(prefill_s + LINK.seconds(160) + decode_s)
    assert_all_served(simulation)


def test_decode_apart_keeps_the_pace_of_outputs_under_long_prompts():
    content = Content(FixedLength(2000), FixedLength(60))
    arrivals = poisson_arrivals(content, num_requests=60, rate_per_s=2.0)
    together = serve(arrivals, Fleet((mixed(2, num_blocks=2000),)))
    big = dataclasses.replace(CONFIG, num_blocks=2000)
    apart = Fleet((Pool(STEP, big, 1, "prefill"), Pool(STEP, big, 1, "decode")), transfer=LINK)
    split = serve(arrivals, apart)
    assert_all_served(split)
    assert split.percentile("tpot_s", 95) < 0.5 * together.percentile("tpot_s", 95)


def test_a_slower_link_costs_time_and_changes_no_token():
    slow = dataclasses.replace(LINK, bandwidth=1e7)
    arrivals = tuple(Arrival(0.1 * i, 160, 5) for i in range(20))
    near, far = (serve(arrivals, Fleet(pools(1, 1), transfer=link)) for link in (LINK, slow))
    assert far.mean("ttft_s") == near.mean("ttft_s")
    assert far.mean("latency_s") > near.mean("latency_s") + 1.0


def test_a_full_decode_cache_makes_transfers_wait_not_fail():
    small = dataclasses.replace(CONFIG, num_blocks=24)
    fleet = Fleet((Pool(STEP, CONFIG, 1, "prefill"), Pool(STEP, small, 1, "decode")), transfer=LINK)
    assert_all_served(serve(tuple(Arrival(0.0, 160, 20) for _ in range(12)), fleet))


# Failures.


def test_requests_of_a_failed_decode_replica_go_on_elsewhere():
    arrivals = tuple(Arrival(0.05 * i, 64, 200) for i in range(12))
    fleet = Fleet(pools(1, 2), transfer=LINK)
    broken = dataclasses.replace(fleet, failures=(Failure(1.0, 2),))
    healthy, hurt = serve(arrivals, fleet), serve(arrivals, broken)
    assert_all_served(hurt)
    moved = [request for request in hurt.requests if len(request.replicas) > 2]
    assert moved
    assert all(request.replicas[-1] == 1 for request in moved)
    assert hurt.percentile("latency_s", 99) > healthy.percentile("latency_s", 99)
    assert [r.ttft_s for r in hurt.requests[:4]] == [r.ttft_s for r in healthy.requests[:4]]


def test_a_repaired_replica_serves_what_waited_for_it():
    fleet = Fleet((mixed(1),), failures=(Failure(0.25, 0, repair_s=5.0),))
    simulation = serve((Arrival(0.0, 10, 100),), fleet)
    assert_all_served(simulation)
    assert simulation.requests[0].finish_s > 5.25
    assert simulation.requests[0].first_token_s < 0.1


def test_without_a_replica_left_requests_are_refused():
    fleet = Fleet((mixed(1),), failures=(Failure(0.25, 0),), roles=ScaleWithLoad(1.0))
    simulation = serve((Arrival(0.0, 10, 100), Arrival(1.0, 10, 1)), fleet)
    assert [request.refused for request in simulation.requests] == [True, True]


# Roles (W13).


def test_switching_roles_beats_a_fixed_split_when_the_load_turns():
    prompts, outputs = Content(FixedLength(1500), FixedLength(4)), fixed_content(40, 150)
    first = poisson_arrivals(prompts, num_requests=150, rate_per_s=10.0, seed=1)
    later = poisson_arrivals(outputs, num_requests=300, rate_per_s=10.0, seed=2)
    shift_s = first[-1].time_s + 5.0
    arrivals = first + tuple(
        dataclasses.replace(arrival, time_s=arrival.time_s + shift_s) for arrival in later
    )
    fixed = Fleet(pools(2, 2), transfer=LINK)
    moving = dataclasses.replace(fixed, roles=BalanceRoles(interval_s=1.0), switch_s=0.5)
    still, adaptive = serve(arrivals, fixed), serve(arrivals, moving)
    assert_all_served(adaptive)
    assert adaptive.percentile("ttft_s", 90) < 0.75 * still.percentile("ttft_s", 90)
    assert adaptive.duration_s < still.duration_s


def test_scaling_pays_for_fewer_replicas_than_the_peak_needs():
    calm = poisson_arrivals(fixed_content(100, 20), num_requests=60, rate_per_s=1.0, seed=3)
    start_s = calm[-1].time_s
    rush = tuple(
        dataclasses.replace(arrival, time_s=arrival.time_s + start_s)
        for arrival in poisson_arrivals(fixed_content(100, 60), num_requests=400, rate_per_s=20.0)
    )
    elastic = Fleet(
        (mixed(1), Pool(STEP, CONFIG, 3, "standby")),
        roles=ScaleWithLoad(interval_s=1.0, high=10.0, low=2.0),
        switch_s=1.0,
    )
    always, one = Fleet((mixed(4),)), Fleet((mixed(1),))
    large, scaled, small = (serve(calm + rush, fleet) for fleet in (always, elastic, one))
    assert_all_served(scaled)
    held = [sum(replica.held_s for replica in run.replicas) for run in (large, scaled)]
    assert held[1] < 0.7 * held[0]
    assert scaled.percentile("ttft_s", 90) < 0.5 * small.percentile("ttft_s", 90)


# Whatever happens.


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    variation=st.sampled_from([0.0, 1.0, 3.0]),
    split=st.booleans(),
    fails=st.lists(
        st.tuples(st.floats(0.1, 5.0), st.integers(0, 2), st.floats(0.1, 3.0)), max_size=3
    ),
)
def test_tokens_are_conserved_through_failures(seed, variation, split, fails):
    content = Content(LogNormalLength(60, 0.8, 500), LogNormalLength(20, 0.8, 100))
    arrivals = gamma_arrivals(
        content, num_requests=30, rate_per_s=15.0, variation=variation, seed=seed
    )
    shape = {"pools": pools(1, 2), "transfer": LINK} if split else {"pools": (mixed(3),)}
    fleet = Fleet(**shape, failures=tuple(Failure(*fail) for fail in fails))
    assert_all_served(serve(arrivals, fleet))
    assert serve(arrivals, fleet) == serve(arrivals, fleet)


def test_an_empty_workload_is_refused():
    with pytest.raises(ConfigError, match="empty"):
        serve((), Fleet((mixed(1),)))
