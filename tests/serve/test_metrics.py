from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.serve.conftest import Post
from tests.serve.fakes import FakeEngine, FakeStats
from weft.engine.speculation.counters import SpeculationStats
from weft.sched.stats import SnapshotCounters, TierCounters, TierStats
from weft.serve.metrics import RateMeter, ServerMetrics
from weft.spec.request import FinishReason


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def samples(text: str) -> dict[str, float]:
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            reason = sample.labels.get("finished_reason", "")
            values[sample.name + (f":{reason}" if reason else "")] = sample.value
    return values


def test_intervals_are_computed_from_known_time_stamps():
    clock = Clock()
    metrics = ServerMetrics("tiny", clock=clock)
    timer = metrics.timer(num_prompt_tokens=7, arrival_s=99.0)
    for clock.now in (101.0, 101.5, 103.0):
        timer.token()
    clock.now = 104.0
    timer.finish(FinishReason.LENGTH)
    timer.finish(FinishReason.ABORT)
    values = samples(metrics.render(None).decode())
    assert values["weft_time_to_first_token_seconds_sum"] == 2.0
    assert values["weft_time_to_first_token_seconds_count"] == 1
    assert values["weft_inter_token_latency_seconds_sum"] == 2.0
    assert values["weft_inter_token_latency_seconds_count"] == 2
    assert values["weft_e2e_request_latency_seconds_sum"] == 5.0
    # TTFT and the gaps add up to the time of the last token.
    first = values["weft_time_to_first_token_seconds_sum"]
    assert first + values["weft_inter_token_latency_seconds_sum"] == 103.0 - 99.0
    assert values["weft_prompt_tokens_total"] == 7
    assert values["weft_generation_tokens_total"] == 3
    assert values["weft_request_success_total:length"] == 1
    assert "weft_request_success_total:abort" not in values


def test_a_scrape_reads_the_engine(call: Post, engine: FakeEngine):
    call("/v1/completions", {"prompt": "abc", "n": 2})
    response = call("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = samples(response.text)
    assert values["weft_num_requests_running"] == 0
    assert values["weft_num_requests_waiting"] == 0
    assert values["weft_kv_cache_usage_perc"] == 0.25
    assert values["weft_prefix_cache_queries_total"] == 100
    assert values["weft_prefix_cache_hits_total"] == 40
    assert values["weft_num_preemptions_total"] == 3
    assert values["weft_request_success_total:stop"] == 2
    assert values["weft_generation_tokens_total"] == 10
    assert values["weft_request_generation_tokens_count"] == 2


def test_tiers_and_snapshots_are_shown_where_there_are_some():
    stats = FakeStats()
    metrics = ServerMetrics("tiny")
    assert not [name for name in samples(metrics.render(stats).decode()) if "tier" in name]
    moved = TierCounters(10, 4, 3, 7, num_host_hit_tokens=64, num_disk_hit_tokens=48, num_lost=2)
    stats.scheduler.tiers = TierStats(8, 6, 0, 0, moved)
    stats.scheduler.snapshots = SnapshotCounters(num_saved=5, num_restored=3)
    values = samples(metrics.render(stats).decode())
    assert values["weft_host_tier_usage_perc"] == 0.75
    assert values["weft_disk_tier_usage_perc"] == 0.0
    kinds = ("stored", "spilled", "fetched", "loaded")
    assert [values[f"weft_tier_{kind}_blocks_total"] for kind in kinds] == [10, 4, 3, 7]
    assert values["weft_tier_host_hit_tokens_total"] == 64
    assert values["weft_tier_disk_hit_tokens_total"] == 48
    assert values["weft_tier_lost_total"] == 2
    assert values["weft_state_snapshots_saved_total"] == 5
    assert values["weft_state_snapshots_restored_total"] == 3


def test_speculation_has_counters_where_there_is_any():
    metrics = ServerMetrics("tiny")
    stats = FakeStats()
    assert not any("spec_decode" in name for name in samples(metrics.render(stats).decode()))
    stats.speculation = SpeculationStats(3, 9, 4, (3, 1))
    text = metrics.render(stats).decode()
    values = samples(text)
    names = ("num_drafts", "num_draft_tokens", "num_accepted_tokens")
    assert [values[f"weft_spec_decode_{name}_total"] for name in names] == [3, 9, 4]
    per_position = 'num_accepted_tokens_per_pos_total{model_name="tiny",position="1"} 1.0'
    assert f"weft_spec_decode_{per_position}" in text


def test_two_applications_in_one_process_do_not_share_numbers():
    first, second = (ServerMetrics("tiny") for _ in range(2))
    first.timer(3, 0.0).token()
    assert samples(first.render(None).decode())["weft_prompt_tokens_total"] == 3
    assert samples(second.render(None).decode())["weft_prompt_tokens_total"] == 0


def test_the_rate_forgets_what_is_older_than_its_window():
    clock = Clock()
    meter = RateMeter(window_s=5.0, clock=clock)
    assert meter.rate() == 0.0
    for clock.now in (100.0, 101.0, 102.0, 103.0, 104.0):
        meter.add(10)
    assert meter.rate() == 50 / 4
    clock.now = 107.5
    assert meter.rate() == 20 / 4.5
    clock.now = 200.0
    assert meter.rate() == 0.0
