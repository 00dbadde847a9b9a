"""Forks share what their parents have computed and write nothing that others read."""

from __future__ import annotations

import pytest

from tests.sched.test_scheduler import counts, make, step, submit
from weft.core.errors import ContextLengthError, QueueFullError, RequestError
from weft.sched.plan import Sampled, StepPlan, StepResult
from weft.sched.scheduler import Scheduler
from weft.spec.request import FinishReason, Request
from weft.spec.sampling import SamplingParams

PROMPT = tuple(range(10, 20))


def samples(num: int, tokens: tuple[int, ...] = PROMPT, **changes) -> list[Request]:
    first = Request("s0", tokens, SamplingParams(), **changes)
    forks = [
        Request(f"s{i}", tokens, SamplingParams(), sequence=i, fork_of="s0", **changes)
        for i in range(1, num)
    ]
    return [first, *forks]


def starts(plan: StepPlan) -> dict[int, int]:
    return {item.id: item.start for item in plan.items}


def test_samples_of_one_prompt_compute_it_once_and_share_its_blocks():
    scheduler = make(max_tokens_per_step=64)
    scheduler.submit_all(samples(3))
    plan, _ = step(scheduler)
    assert counts(plan) == {0: 10}, "the others wait for the prompt"
    assert scheduler.stats().num_waiting == 2
    plan, _ = step(scheduler)
    assert counts(plan) == {0: 1, 1: 1, 2: 1}
    assert starts(plan) == {0: 10, 1: 9, 2: 9}, "the last prompt token gives their own logits"
    tables = [item.blocks for item in plan.items]
    assert tables[0][:2] == tables[1][:2] == tables[2][:2]
    assert len({table[2] for table in tables}) == 3
    copies = plan.blocks.copies
    assert sorted(copies) == sorted((tables[0][2], table[2]) for table in tables[1:])
    assert scheduler.stats().num_used_blocks == 5
    assert step(scheduler)[0].blocks.copies == ()


def test_a_prefix_of_whole_blocks_needs_no_copy():
    scheduler = make(max_tokens_per_step=64)
    scheduler.submit_all(samples(2, tuple(range(9))))
    step(scheduler)
    plan, _ = step(scheduler)
    assert starts(plan) == {0: 9, 1: 8}
    assert plan.blocks.copies == ()


def test_forks_share_without_a_prefix_cache():
    scheduler = make(max_tokens_per_step=64, enable_prefix_cache=False)
    scheduler.submit_all(samples(2))
    step(scheduler)
    plan, _ = step(scheduler)
    assert starts(plan) == {0: 10, 1: 9}
    scheduler.finish("s0", FinishReason.ABORT)
    step(scheduler)
    scheduler.finish("s1", FinishReason.ABORT)
    assert scheduler.stats().num_used_blocks == 0


def test_a_fork_of_a_running_request_begins_at_once_also_if_its_parent_ends():
    # As in beam search: the parent's tokens and another last one.
    scheduler = make(max_tokens_per_step=64)
    submit(scheduler, "a", 10)
    for _ in range(3):
        step(scheduler)
    tokens = (*(100 * ord("a") + i for i in range(10)), 9, 9, 7)
    scheduler.submit(Request("b", tokens, fork_of="a"))
    scheduler.check()
    scheduler.finish("a", FinishReason.ABORT)
    scheduler.check()
    plan, _ = step(scheduler)
    assert starts(plan) == {1: 12}
    assert [new.request_id for new in plan.new] == ["b"]
    assert plan.blocks.copies == (), "the parent has filled three blocks"
    scheduler.submit(Request("c", (*tokens[:11], 5, 6), fork_of="b"))
    scheduler.finish("b", FinishReason.ABORT)
    plan, _ = step(scheduler)
    assert starts(plan) == {2: 11}
    ((source, target),) = plan.blocks.copies
    assert target == plan.items[0].blocks[2] != source
    scheduler.check()


def test_the_block_to_copy_is_kept_until_the_plan_that_copies_it():
    scheduler = make(num_blocks=4, max_tokens_per_step=64, max_context=64)
    submit(scheduler, "a", 7)
    step(scheduler)
    parent = scheduler.schedule(0.0)
    scheduler.submit(Request("b", tuple(100 * ord("a") + i for i in range(7)), fork_of="a"))
    scheduler.finish("a", FinishReason.ABORT)
    assert scheduler.stats().num_used_blocks == 3, "two of b and the source"
    scheduler.settle(parent, StepResult({0: (Sampled(9, 0.0),)}), 0.0)
    scheduler.check()
    scheduler.finish("b", FinishReason.ABORT)
    assert scheduler.stats().num_used_blocks == 0
    scheduler.check()


@pytest.mark.parametrize(
    "changes", [{"cache_salt": "other"}, {"adapter": "other#1"}, {"fork_of": "nobody"}], ids=str
)
def test_forks_that_cannot_share_are_ordinary_requests(changes):
    scheduler = make(max_tokens_per_step=64)
    submit(scheduler, "a", 0, tokens=PROMPT)
    scheduler.submit(Request("b", PROMPT, **{"fork_of": "a", **changes}))
    assert starts(step(scheduler)[0]) == {0: 0, 1: 0}


@pytest.mark.parametrize("config", [{"enable_forks": False}, {"window": 4, "max_context": 40}])
def test_where_forks_do_not_share_they_are_ordinary_requests(config):
    scheduler = make(max_tokens_per_step=64, enable_prefix_cache=False, **config)
    scheduler.submit_all(samples(2))
    assert starts(step(scheduler)[0]) == {0: 0, 1: 0}


def test_a_fork_that_scores_its_prompt_shares_nothing():
    scheduler = make(max_tokens_per_step=64)
    submit(scheduler, "a", 0, tokens=PROMPT)
    sampling = SamplingParams(prompt_logprobs=1)
    scheduler.submit(Request("b", PROMPT, sampling, fork_of="a"))
    assert starts(step(scheduler)[0]) == {0: 0, 1: 0}


def test_a_fork_of_a_parent_computed_with_older_weights_computes_itself():
    scheduler = make(max_tokens_per_step=64)
    submit(scheduler, "a", 0, tokens=PROMPT)
    step(scheduler)
    scheduler.set_weight_version(1)
    scheduler.submit(Request("b", PROMPT, fork_of="a"))
    assert starts(step(scheduler)[0]) == {0: 10, 1: 0}


def test_a_fork_that_has_computed_nothing_begins_again_with_new_weights():
    scheduler = make(max_tokens_per_step=64)
    submit(scheduler, "a", 0, tokens=PROMPT)
    step(scheduler)
    scheduler.submit(Request("b", PROMPT, fork_of="a"))
    scheduler.set_weight_version(1)
    assert starts(step(scheduler)[0]) == {0: 10, 1: 0}


def test_held_forks_become_ordinary_when_their_parent_ends():
    scheduler = make(max_tokens_per_step=64, long_prefill_threshold=4)
    scheduler.submit_all(samples(3))
    step(scheduler)
    scheduler.finish("s0", FinishReason.ABORT)
    scheduler.check()
    plan, _ = step(scheduler)
    assert starts(plan) == {1: 4, 2: 4}, "behind the block that is cached"


def test_held_forks_are_held_again_by_nobody_when_their_parent_gives_way():
    scheduler = make(max_tokens_per_step=64, long_prefill_threshold=4)
    scheduler.submit_all(samples(2))
    step(scheduler)
    assert scheduler.retract() == ("s0",)
    scheduler.check()
    for _ in range(2):
        assert counts(step(scheduler)[0]).keys() == {0}
    assert starts(step(scheduler)[0]) == {0: 10, 1: 9}


def test_held_forks_can_be_aborted_and_time_out():
    scheduler = make(max_tokens_per_step=64, long_prefill_threshold=4)
    scheduler.submit_all(samples(3, deadline_s=5.0))
    step(scheduler)
    update = scheduler.finish("s1", FinishReason.ABORT)
    assert update is not None
    assert update.finish_reason is FinishReason.ABORT
    scheduler.check()
    _, updates = step(scheduler, now_s=6.0)
    assert {(u.request_id, u.finish_reason) for u in updates} == {
        ("s0", FinishReason.TIMEOUT),
        ("s2", FinishReason.TIMEOUT),
    }
    assert scheduler.num_unfinished == 0


def test_a_fork_without_room_waits_in_its_parents_place():
    scheduler = make(max_tokens_per_step=64, max_num_sequences=2)
    submit(scheduler, "x", 4, sampling={"max_tokens": 2})
    scheduler.submit_all(samples(2))
    submit(scheduler, "y", 4)
    assert counts(step(scheduler)[0]) == {0: 4, 1: 10}
    assert counts(step(scheduler)[0]) == {0: 1, 1: 1}, "both places are taken"
    assert starts(step(scheduler)[0]) == {1: 11, 2: 9}, "before y, which came before it was ready"


def test_a_fork_that_begins_and_gives_way_before_its_first_step_is_introduced_later():
    scheduler = make(max_tokens_per_step=64)
    submit(scheduler, "a", 0, tokens=PROMPT)
    step(scheduler)
    scheduler.submit(Request("b", PROMPT, fork_of="a"))
    assert scheduler.retract() == ("a", "b")
    plan, _ = step(scheduler)
    assert plan.preempted == (0,), "the runner has not seen the other one"
    assert [new.request_id for new in plan.new] == ["b"]
    assert plan.blocks.copies == ()


def test_samples_are_queued_all_or_none():
    scheduler = make(max_waiting=4)
    submit(scheduler, "a", 4)
    submit(scheduler, "b", 4)
    with pytest.raises(QueueFullError, match="2 requests are waiting"):
        scheduler.submit_all(samples(3))
    assert scheduler.num_unfinished == 2
    assert scheduler.stats().counters.num_refused == 3
    with pytest.raises(RequestError, match="5 samples are more than the 4 requests that may wait"):
        scheduler.submit_all(samples(5))
    with pytest.raises(RequestError, match="'s0' is in use"):
        scheduler.submit_all([*samples(1), *samples(1)])
    with pytest.raises(ContextLengthError):
        scheduler.submit_all([*samples(1), Request("long", tuple(range(100)))])
    scheduler.submit_all(samples(2))
    assert scheduler.stats().num_waiting == 4


def test_held_forks_count_as_waiting():
    scheduler = make(max_waiting=3, max_tokens_per_step=64, long_prefill_threshold=2)
    scheduler.submit_all(samples(3))
    step(scheduler)
    submit(scheduler, "a", 4)
    with pytest.raises(QueueFullError, match="3 requests are waiting"):
        submit(scheduler, "b", 4)


def test_children_of_a_fork_stay_in_the_family():
    scheduler = make(max_tokens_per_step=64, max_num_sequences=3)
    submit(scheduler, "a", 0, tokens=PROMPT)
    submit(scheduler, "x", 4, sampling={"max_tokens": 2})
    step(scheduler)
    scheduler.submit(Request("b", (*PROMPT, 1), fork_of="a"))
    submit(scheduler, "y", 4)
    scheduler.submit(Request("c", (*PROMPT, 1, 2), fork_of="b"))
    assert scheduler.stats().num_waiting == 2
    step(scheduler)
    assert starts(step(scheduler)[0]).keys() == {0, 2, 4}, "c before y"


def run_to_end(scheduler: Scheduler) -> None:
    while scheduler.has_work:
        step(scheduler)


def test_forks_leak_nothing():
    scheduler = make(max_tokens_per_step=64, num_blocks=9)
    scheduler.submit_all(samples(4))
    for index in range(1, 4):
        assert scheduler.finish(f"s{index}", FinishReason.ABORT) is not None
    scheduler.submit_all(
        [Request(f"t{i}", PROMPT, SamplingParams(max_tokens=9), fork_of="s0") for i in range(4)]
    )
    run_to_end(scheduler)
    assert scheduler.stats().num_used_blocks == 0
