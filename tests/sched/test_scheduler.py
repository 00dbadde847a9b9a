from __future__ import annotations

import dataclasses

import pytest

from weft.core.errors import ConfigError, ContextLengthError, QueueFullError, RequestError
from weft.sched.config import SchedulerConfig
from weft.sched.plan import Sampled, SequenceUpdate, StepPlan, StepResult
from weft.sched.scheduler import Scheduler
from weft.spec.request import FinishReason, Request
from weft.spec.sampling import SamplingParams

BASE = SchedulerConfig(
    num_blocks=64,
    max_context=64,
    block_size=4,
    max_num_sequences=8,
    max_tokens_per_step=16,
    admission_reserve=0.0,
)
EOS_ID = 2


def make(**changes) -> Scheduler:
    return Scheduler(dataclasses.replace(BASE, **changes), eos_ids=(EOS_ID,))


def submit(scheduler: Scheduler, id_: str, num_tokens: int, **changes) -> None:
    tokens = changes.pop("tokens", tuple(100 * ord(id_[0]) + i for i in range(num_tokens)))
    sampling = SamplingParams(**changes.pop("sampling", {}))
    scheduler.submit(Request(id_, tokens, sampling, **changes))


def step(
    scheduler: Scheduler, *, token: int = 9, now_s: float = 0.0
) -> tuple[StepPlan, list[SequenceUpdate]]:
    plan = scheduler.schedule(now_s)
    tokens = {item.id: (Sampled(token, -0.5),) for item in plan.items if item.sample}
    updates = scheduler.settle(plan, StepResult(tokens), now_s)
    scheduler.check()
    return plan, updates


def counts(plan: StepPlan) -> dict[int, int]:
    return {item.id: len(item.tokens) for item in plan.items}


def test_a_prompt_is_computed_in_chunks_and_sampled_after_the_last():
    # Row G09: nine tokens in chunks of three, then one token per step.
    scheduler = make(long_prefill_threshold=3)
    submit(scheduler, "a", 9)
    plans = [step(scheduler)[0] for _ in range(5)]
    spans = [(p.items[0].start, len(p.items[0].tokens), p.items[0].sample) for p in plans]
    assert spans == [(0, 3, False), (3, 3, False), (6, 3, True), (9, 1, True), (10, 1, True)]


def test_decodes_and_prompt_chunks_share_a_step_and_decodes_come_first():
    scheduler = make(max_num_sequences=4, max_tokens_per_step=8)
    submit(scheduler, "a", 2)
    submit(scheduler, "b", 3)
    step(scheduler)
    submit(scheduler, "c", 20)
    assert counts(step(scheduler)[0]) == {0: 1, 1: 1, 2: 6}
    submit(scheduler, "d", 5)
    assert list(counts(step(scheduler)[0]).items()) == [(0, 1), (1, 1), (2, 6)]
    assert counts(step(scheduler)[0]) == {0: 1, 1: 1, 2: 6}
    assert counts(step(scheduler)[0]) == {0: 1, 1: 1, 2: 2, 3: 4}


def test_a_full_block_pool_preempts_the_last_arrival_and_recomputes_it():
    # Row G07: three blocks of ten.
    scheduler = make(num_blocks=3, block_size=10, max_tokens_per_step=64, enable_prefix_cache=False)
    sampling = {"max_tokens": 5}
    submit(scheduler, "a", 9, sampling=sampling)
    submit(scheduler, "b", 10, sampling=sampling)
    step(scheduler)
    plan, _ = step(scheduler)  # b's second block is the third and last
    assert counts(plan) == {0: 1, 1: 1}
    plan, _ = step(scheduler)  # a needs one, too
    assert counts(plan) == {0: 1}
    assert plan.preempted == (1,)
    assert scheduler.stats().num_waiting == 1
    assert scheduler.stats().counters.num_preemptions == 1
    assert step(scheduler)[0].preempted == (), "it is said once"
    _, updates = step(scheduler)
    assert updates[0].finish_reason is FinishReason.LENGTH
    plan, _ = step(scheduler)
    (item,) = plan.items
    assert plan.new == (), "a resumed sequence is not introduced again"
    assert (item.id, item.start, item.sample) == (1, 0, True)
    assert item.tokens[-2:] == (9, 9), "its output is computed again with its prompt"
    assert len(item.tokens) == 12


def test_the_lowest_priority_is_preempted_whoever_came_first():
    scheduler = make(num_blocks=3, block_size=10, max_tokens_per_step=64)
    submit(scheduler, "low", 10, priority=1)
    submit(scheduler, "high", 9, priority=0)
    step(scheduler)
    step(scheduler)
    assert counts(step(scheduler)[0]) == {1: 1}


def test_a_step_that_preempts_admits_nobody():
    scheduler = make(num_blocks=4, block_size=2, max_tokens_per_step=64)
    submit(scheduler, "a", 4)
    submit(scheduler, "b", 4)
    step(scheduler)
    submit(scheduler, "urgent", 1, priority=-1)
    assert counts(step(scheduler)[0]) == {0: 1}
    assert counts(step(scheduler)[0]) == {0: 1, 2: 1}


def test_priority_then_arrival_decides_who_is_admitted():
    scheduler = make(max_num_sequences=1, max_tokens_per_step=64)
    for id_, priority in (("a", 1), ("b", 0), ("c", 0)):
        submit(scheduler, id_, 2, priority=priority, sampling={"max_tokens": 1})
    order = [step(scheduler)[0].items[0].id for _ in range(3)]
    assert order == [1, 2, 0]


def test_a_reserve_is_kept_free_for_those_who_run():
    scheduler = make(num_blocks=10, admission_reserve=0.2, max_tokens_per_step=64)
    submit(scheduler, "a", 32)
    submit(scheduler, "b", 4)
    assert counts(step(scheduler)[0]) == {0: 32}
    assert scheduler.stats().num_waiting == 1


def test_a_repeated_prompt_is_a_hit_and_reported():
    scheduler = make(max_tokens_per_step=64)
    submit(scheduler, "a", 0, tokens=tuple(range(10, 20)), sampling={"max_tokens": 1})
    assert step(scheduler)[1][0].num_cached_tokens == 0
    submit(scheduler, "b", 0, tokens=tuple(range(10, 20)), sampling={"max_tokens": 1})
    plan, (update,) = step(scheduler)
    assert plan.items[0].start == 8
    assert update.num_cached_tokens == 8
    stats = scheduler.stats()
    assert stats.counters.num_prefix_queried_tokens == 20
    assert stats.counters.num_prefix_hit_tokens == 8
    assert stats.prefix_hit_rate == 0.4


def test_output_is_part_of_the_cached_prefix_of_the_next_turn():
    scheduler = make(max_tokens_per_step=64)
    submit(scheduler, "a", 0, tokens=(10, 11), sampling={"max_tokens": 7})
    while scheduler.has_work:
        step(scheduler)
    submit(scheduler, "b", 0, tokens=(10, 11, *(9,) * 7, 12))
    assert step(scheduler)[0].items[0].start == 8


def test_new_weights_hide_older_prefixes():
    scheduler = make(max_tokens_per_step=64)
    submit(scheduler, "a", 0, tokens=tuple(range(10, 20)), sampling={"max_tokens": 1})
    step(scheduler)
    scheduler.set_weight_version(1)
    assert scheduler.weight_version == 1
    submit(scheduler, "b", 0, tokens=tuple(range(10, 20)))
    assert step(scheduler)[0].items[0].start == 0
    with pytest.raises(ConfigError, match="weight version 0 is below the present 1"):
        scheduler.set_weight_version(0)


def test_a_preempted_sequence_finds_the_blocks_it_left():
    scheduler = make(num_blocks=5, block_size=2, max_tokens_per_step=64)
    submit(scheduler, "a", 4, sampling={"max_tokens": 2})
    submit(scheduler, "b", 4)
    step(scheduler)
    assert counts(step(scheduler)[0]) == {0: 1}, "a took the last block and b was preempted"
    (item,) = step(scheduler)[0].items
    assert (item.id, item.start, len(item.tokens)) == (1, 4, 1)


@pytest.mark.parametrize(
    ("sampling", "tokens", "reasons"),
    [
        ({}, [9, EOS_ID], [None, FinishReason.STOP]),
        ({"ignore_eos": True, "max_tokens": 2}, [EOS_ID, EOS_ID], [None, FinishReason.LENGTH]),
        ({"stop_token_ids": (5,)}, [5], [FinishReason.STOP]),
        ({"ignore_eos": True, "stop_token_ids": (5,)}, [EOS_ID, 5], [None, FinishReason.STOP]),
        ({"min_tokens": 2}, [EOS_ID, EOS_ID, EOS_ID], [None, None, FinishReason.STOP]),
        ({"max_tokens": 1}, [EOS_ID], [FinishReason.STOP]),
    ],
)
def test_what_ends_a_sequence(sampling, tokens, reasons):
    scheduler = make()
    submit(scheduler, "a", 3, sampling=sampling)
    assert [step(scheduler, token=token)[1][0].finish_reason for token in tokens] == reasons
    assert scheduler.num_unfinished == 0


def test_a_sequence_ends_when_the_context_is_full():
    scheduler = make(max_context=8)
    submit(scheduler, "a", 6)
    assert [step(scheduler)[1][0].finish_reason for _ in range(2)] == [None, FinishReason.LENGTH]


def test_the_runner_learns_all_tokens_that_end_a_sequence():
    scheduler = make()
    submit(scheduler, "a", 2, sampling={"stop_token_ids": (5, EOS_ID), "seed": 4}, sequence=3)
    (new,) = step(scheduler)[0].new
    assert new.stop_token_ids == (EOS_ID, 5)
    assert (new.request_id, new.seed, new.sequence, len(new.prompt)) == ("a", 4, 3, 2)


def test_seeds_that_are_drawn_follow_the_seed_of_the_scheduler():
    drawn = []
    for seed in (1, 1, 2):
        scheduler = make(seed=seed)
        submit(scheduler, "a", 2)
        submit(scheduler, "b", 2)
        drawn.append([new.seed for new in step(scheduler)[0].new])
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0][0] != drawn[0][1]


def test_a_prompt_beyond_the_context_is_refused_with_numbers_and_a_way_out():
    scheduler = make()
    with pytest.raises(ContextLengthError) as caught:
        submit(scheduler, "a", 70)
    assert "the prompt has 70 tokens; the context of 64 tokens" in str(caught.value)
    assert "shorten the prompt by at least 7 tokens" in str(caught.value)
    submit(scheduler, "b", 63)


def test_a_prompt_beyond_the_kv_cache_is_refused_with_numbers_and_a_way_out():
    scheduler = make(num_blocks=5)
    with pytest.raises(ContextLengthError) as caught:
        submit(scheduler, "a", 20)
    assert "the KV cache of 5 blocks x 4 tokens holds a prompt of at most 19" in str(caught.value)
    assert "give the KV cache more memory" in str(caught.value)
    submit(scheduler, "b", 19)


def test_an_empty_prompt_and_a_used_id_are_refused():
    scheduler = make()
    with pytest.raises(RequestError, match="the prompt is empty"):
        submit(scheduler, "a", 0)
    submit(scheduler, "a", 2)
    with pytest.raises(RequestError, match="'a' is in use"):
        submit(scheduler, "a", 2)


def test_a_full_queue_refuses_and_says_when_to_come_back():
    scheduler = make(max_waiting=2)
    submit(scheduler, "a", 2)
    submit(scheduler, "b", 2)
    with pytest.raises(QueueFullError, match="2 requests are waiting") as caught:
        submit(scheduler, "c", 2)
    assert caught.value.retry_after_s == 1
    assert scheduler.stats().counters.num_refused == 1
    step(scheduler)
    submit(scheduler, "c", 2)


def test_deadlines_end_waiting_and_running_requests():
    scheduler = make(max_num_sequences=1, max_tokens_per_step=64)
    submit(scheduler, "runs", 2, deadline_s=3.0)
    submit(scheduler, "waits", 2, deadline_s=3.0)
    step(scheduler, now_s=2.9)
    plan, updates = step(scheduler, now_s=3.0)
    assert plan.items == ()
    assert {(u.request_id, u.finish_reason) for u in updates} == {
        ("runs", FinishReason.TIMEOUT),
        ("waits", FinishReason.TIMEOUT),
    }
    assert plan.finished == (0,), "the runner never saw the one that waited"


def test_the_deadline_of_an_ended_request_does_not_end_another_of_its_name():
    scheduler = make()
    submit(scheduler, "a", 2, deadline_s=3.0)
    scheduler.finish("a", FinishReason.ABORT)
    submit(scheduler, "a", 2)
    _, (update,) = step(scheduler, now_s=4.0)
    assert update.token == 9


def test_a_request_that_ends_in_flight_gives_its_blocks_back_and_its_token_is_dropped():
    scheduler = make()
    submit(scheduler, "a", 6)
    plan = scheduler.schedule(0.0)
    assert scheduler.finish("a", FinishReason.ABORT) is not None
    assert scheduler.stats().num_used_blocks == 0
    scheduler.check()
    assert scheduler.settle(plan, StepResult({0: (Sampled(9, 0.0),)}), 0.0) == []
    assert scheduler.schedule(0.0).finished == (0,)


def test_an_error_of_one_sequence_ends_only_that_one():
    scheduler = make()
    submit(scheduler, "a", 2)
    submit(scheduler, "b", 2)
    plan = scheduler.schedule(0.0)
    result = StepResult({1: (Sampled(9, -1.0),)}, {0: "its grammar broke"})
    broken, fine = scheduler.settle(plan, result, 0.0)
    assert (broken.finish_reason, broken.error) == (FinishReason.ERROR, "its grammar broke")
    assert (fine.token, fine.finish_reason) == (9, None)
    scheduler.check()


def test_a_missing_token_is_an_error_of_its_sequence():
    scheduler = make()
    submit(scheduler, "a", 2)
    plan = scheduler.schedule(0.0)
    (update,) = scheduler.settle(plan, StepResult({}), 0.0)
    assert update.error == "the runner returned no token"


def test_a_stop_text_found_outside_ends_the_sequence_before_the_next_step():
    scheduler = make()
    submit(scheduler, "a", 2)
    step(scheduler)
    update = scheduler.finish("a", FinishReason.STOP)
    assert update is not None
    assert update.finish_reason is FinishReason.STOP
    plan, updates = step(scheduler)
    assert (plan.items, plan.finished, updates) == ((), (0,), [])
    assert not scheduler.has_work


def test_statistics_add_up():
    scheduler = make()
    submit(scheduler, "a", 6, sampling={"max_tokens": 2})
    step(scheduler)
    stats = scheduler.stats()
    assert (stats.num_running, stats.num_waiting) == (1, 0)
    assert (stats.num_used_blocks, stats.num_cached_blocks, stats.num_blank_blocks) == (2, 0, 62)
    assert stats.kv_usage == 2 / 64
    step(scheduler)
    stats = scheduler.stats()
    assert (stats.num_used_blocks, stats.num_cached_blocks, stats.num_blank_blocks) == (0, 1, 63)
    counters = stats.counters
    assert counters.num_steps == 2
    assert counters.num_computed_tokens == 7
    assert (counters.num_prompt_tokens, counters.num_generated_tokens) == (6, 2)
    assert counters.num_finished == {FinishReason.LENGTH: 1}
