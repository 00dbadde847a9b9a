"""The serving search: levels are kept, the front is a front, the devices are there."""

from __future__ import annotations

import pytest

from weft.core.errors import ResourceError
from weft.plan.hardware.cluster import Cluster
from weft.plan.inference.load import Traffic, estimate_closed_loop
from weft.plan.inference.step import StepModel
from weft.plan.search.serving import ServingSearch, ServingSpace, search_serving
from weft.plan.simulator.result import ServiceLevel
from weft.spec import ModelSpec, zoo

LEVEL = ServiceLevel(ttft_s=1.0, tpot_s=0.03)
TRAFFIC = Traffic(1024, 256)


def search(level: ServiceLevel | None, *, name: str = "qwen3-32b") -> ServingSearch:
    spec = zoo.spec(name)
    assert isinstance(spec, ModelSpec)
    return search_serving(spec, ServingSpace(Cluster.parse("H100x8"), TRAFFIC, level=level))


def test_every_option_keeps_the_level() -> None:
    found = search(LEVEL)
    assert found.best
    for one in found.best:
        assert one.ttft_s <= 1.0
        assert one.tpot_s <= 0.03
        assert one.num_devices <= 8


def test_one_more_client_per_replica_breaks_the_level_it_is_bound_by() -> None:
    for one in search(LEVEL).best:
        if one.prefill is None and one.binding in ("ttft", "tpot"):
            clients = one.num_clients // one.num_replicas + 1
            model = StepModel(one.deployment)
            more = estimate_closed_loop(model, TRAFFIC, num_clients=clients)
            assert more.ttft_s > 1.0 or more.tpot_s > 0.03


def test_a_looser_level_never_serves_less() -> None:
    tight, loose = search(LEVEL), search(None)
    assert loose.best[0].tokens_per_s_per_device >= tight.best[0].tokens_per_s_per_device


def test_the_front_trades_rate_for_speed() -> None:
    front = search(None).front
    rates = [one.tokens_per_s_per_device for one in front]
    speeds = [one.tokens_per_s_per_user for one in front]
    assert len(front) > 3
    assert rates == sorted(rates, reverse=True)
    assert speeds == sorted(speeds)


def test_a_level_nothing_keeps_says_what_fell_and_why() -> None:
    with pytest.raises(ResourceError, match="tpot") as caught:
        search(ServiceLevel(tpot_s=1e-5))
    assert "more time" in str(caught.value)


def test_a_model_too_large_says_memory() -> None:
    with pytest.raises(ResourceError, match="memory"):
        search(LEVEL, name="llama-3.1-405b")
