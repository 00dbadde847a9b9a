"""Guesses are planned where they fit, and only what held stays."""

from __future__ import annotations

import dataclasses

import pytest

from tests.sched.test_scheduler import BASE, EOS_ID, submit
from weft.core.errors import ConfigError
from weft.sched.plan import Draft, Sampled, SequenceUpdate, StepPlan, StepResult
from weft.sched.scheduler import Scheduler
from weft.spec.request import FinishReason

CHAIN = Draft((21, 22, 23))


def make(**changes) -> Scheduler:
    config = dataclasses.replace(BASE, max_draft=4, **changes)
    return Scheduler(config, eos_ids=(EOS_ID,))


def step(
    scheduler: Scheduler, *drawn: int, drafts: dict[int, Draft] | None = None
) -> tuple[StepPlan, list[SequenceUpdate]]:
    """Run a step in which every sampling item draws `drawn`, one token without a draft."""
    plan = scheduler.schedule(0.0)
    tokens = {
        item.id: tuple(Sampled(token, -0.5) for token in (drawn if item.draft else drawn[-1:]))
        for item in plan.items
        if item.sample
    }
    updates = scheduler.settle(plan, StepResult(tokens, drafts=drafts or {}), 0.0)
    scheduler.check()
    return plan, updates


def test_a_draft_is_verified_in_the_next_step_and_the_one_after_starts_behind_what_held():
    scheduler = make()
    submit(scheduler, "a", 6)
    step(scheduler, 20, drafts={0: CHAIN})
    plan, updates = step(scheduler, 21, 22, 9)
    (item,) = plan.items
    assert (item.tokens, item.start, item.sample, item.draft) == ((20,), 6, True, CHAIN)
    assert plan.num_tokens == 4
    assert len(item.blocks) * BASE.block_size >= 10, "guesses have slots"
    assert [update.token for update in updates] == [21, 22, 9]
    (item,) = step(scheduler, 9)[0].items
    assert (item.tokens, item.start, item.draft) == ((9,), 9, None)
    assert scheduler.stats().counters.num_generated_tokens == 5


def test_blocks_of_guesses_that_failed_go_back_and_none_of_them_is_cached():
    scheduler = make(block_size=2)
    submit(scheduler, "a", 4)
    step(scheduler, 20, drafts={0: CHAIN})
    assert scheduler.stats().num_used_blocks == 2
    plan, _ = step(scheduler, 9)
    assert len(plan.items[0].blocks) == 4, "positions 4 to 7"
    assert scheduler.stats().num_used_blocks == 3, "positions 0 to 5"
    assert len(scheduler.kv.tree) == 2
    step(scheduler, 9)
    assert len(scheduler.kv.tree) == 3
    assert {node.tokens for node in scheduler.kv.tree} >= {(20, 9)}


def test_blocks_filled_by_guesses_that_held_are_cached():
    scheduler = make(block_size=2)
    submit(scheduler, "a", 4)
    step(scheduler, 20, drafts={0: CHAIN})
    step(scheduler, 21, 22, 23, 9)
    assert {node.tokens for node in scheduler.kv.tree} >= {(20, 21), (22, 23)}


@pytest.mark.parametrize(
    ("changes", "num_guesses"),
    [
        ({}, 3),
        ({"max_tokens_per_step": 8, "max_context": 9}, 1),
        ({"max_tokens_per_step": 8, "max_context": 8}, None),
        ({"max_tokens_per_step": 3, "max_num_sequences": 1}, 2),
        ({"max_tokens_per_step": 1, "max_num_sequences": 1}, None),
        ({"num_blocks": 2}, None),
        ({"num_blocks": 3}, 1),
        ({"num_blocks": 4}, 3),
    ],
    ids=str,
)
def test_a_draft_is_cut_to_what_budget_length_and_blocks_leave(changes, num_guesses):
    scheduler = make(**changes)
    submit(scheduler, "a", 6)
    while scheduler.stats().counters.num_generated_tokens == 0:
        step(scheduler, 20, drafts={0: CHAIN})
    draft = scheduler.schedule(0.0).items[0].draft
    assert draft == (None if num_guesses is None else CHAIN.head(num_guesses))


def test_a_tree_is_cut_to_its_first_guesses():
    scheduler = make(max_tokens_per_step=3, max_num_sequences=1)
    submit(scheduler, "a", 3)
    step(scheduler, 20, drafts={0: Draft((21, 31, 22), (-1, -1, 0))})
    assert step(scheduler, 31, 9)[0].items[0].draft == Draft((21, 31), (-1, -1))
    assert scheduler.schedule(0.0).items[0].start == 5


def test_drafts_leave_half_of_the_budget_to_prompts():
    scheduler = make(max_tokens_per_step=9)
    submit(scheduler, "a", 2)
    step(scheduler, 20, drafts={0: Draft((21, 22, 23, 24, 25))})
    submit(scheduler, "b", 30)
    plan, _ = step(scheduler, 9)
    assert [item.num_tokens for item in plan.items] == [5, 4]


def test_a_draft_never_preempts():
    scheduler = make(num_blocks=4, block_size=2, max_tokens_per_step=32)
    submit(scheduler, "a", 3)
    submit(scheduler, "b", 3)
    step(scheduler, 20, drafts={0: CHAIN, 1: CHAIN})
    plan, _ = step(scheduler, 9)
    assert [item.draft for item in plan.items] == [None, None]
    assert plan.preempted == ()


def test_a_sequence_that_ends_among_its_guesses_gives_no_further_token():
    scheduler = make()
    submit(scheduler, "a", 2)
    step(scheduler, 20, drafts={0: Draft((21, EOS_ID, 23))})
    _, updates = step(scheduler, 21, EOS_ID, 23, 9)
    assert [update.token for update in updates] == [21, EOS_ID]
    assert updates[-1].finish_reason is FinishReason.STOP
    assert scheduler.stats().num_used_blocks == 0


def test_drafts_are_ignored_unless_they_are_asked_for():
    scheduler = Scheduler(BASE)
    submit(scheduler, "a", 2)
    step(scheduler, 20, drafts={0: CHAIN})
    assert scheduler.schedule(0.0).items[0].draft is None


def test_a_preempted_sequence_loses_its_draft():
    scheduler = make()
    submit(scheduler, "a", 2)
    step(scheduler, 20, drafts={0: CHAIN})
    scheduler.retract()
    plan, _ = step(scheduler, 9)
    assert (plan.items[0].tokens[-1], plan.items[0].draft) == (20, None)


def test_a_ring_of_blocks_refuses_drafts():
    with pytest.raises(
        ConfigError, match="max_draft is 4, but the blocks of a sequence are a ring"
    ):
        make(window=8, enable_prefix_cache=False)
