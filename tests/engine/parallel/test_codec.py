"""Plans arrive as they were sent, whatever is in them and whatever was sent before."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import WeftError
from weft.engine.parallel.codec import PlanDecoder, PlanEncoder
from weft.sched.plan import (
    BlockTransfers,
    Draft,
    NewSequence,
    StateTransfers,
    StepItem,
    StepPlan,
)
from weft.spec import SamplingParams
from weft.spec.structured import (
    EBNF,
    AfterThoughts,
    Choice,
    JSONObject,
    JSONSchema,
    Regex,
    Tag,
    Tagged,
)

NUMBERS = st.integers(-1, 2**40)
TUPLES = st.lists(NUMBERS, max_size=5).map(tuple)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3).map(tuple)
SCHEMA = JSONSchema('{"type": "object"}', compact=True)
STRUCTURES = [
    None,
    SCHEMA,
    JSONObject(),
    Regex("[a-z]+"),
    EBNF('root ::= "a"'),
    Choice(("ja", "nein 漢")),
    Tagged((Tag("<a>", SCHEMA, "</a>"),), trigger="<", otherwise=JSONObject()),
    AfterThoughts(Regex("x"), "</think>"),
]
SAMPLING = st.builds(
    SamplingParams,
    temperature=st.floats(0, 5),
    seed=st.none() | st.integers(-(2**63), 2**64),
    logit_bias=st.just(((3, 1.5), (4, -100.0))),
    bad_words=st.just(((1, 2), (3,))),
    stop=st.just(("ende",)),
    structured=st.sampled_from(STRUCTURES),
)
ITEMS = st.lists(
    st.builds(
        StepItem,
        id=st.integers(0, 4),
        tokens=TUPLES,
        start=NUMBERS,
        blocks=TUPLES,
        sample=st.booleans(),
        draft=st.none() | st.builds(Draft, TUPLES, TUPLES),
    ),
    max_size=4,
    unique_by=lambda item: item.id,
).map(tuple)
PLANS = st.builds(
    StepPlan,
    step=NUMBERS,
    items=ITEMS,
    new=st.lists(
        st.builds(
            NewSequence, NUMBERS, st.text(), TUPLES, SAMPLING, NUMBERS, NUMBERS, TUPLES, st.text()
        ),
        max_size=2,
    ).map(tuple),
    finished=st.lists(st.integers(0, 4), max_size=2).map(tuple),
    preempted=st.lists(st.integers(0, 4), max_size=2).map(tuple),
    blocks=st.builds(BlockTransfers, PAIRS, PAIRS, PAIRS, PAIRS, PAIRS),
    states=st.builds(StateTransfers, PAIRS, PAIRS),
)


@settings(max_examples=40)
@given(st.lists(PLANS, max_size=4))
def test_plans_arrive_as_they_were_sent(plans):
    encoder, decoder = PlanEncoder(), PlanDecoder()
    assert [decoder.decode(encoder.encode(plan)) for plan in plans] == plans


def test_every_field_of_a_plan_is_known_here():
    """A field that is added must be encoded, and be in the strategies above."""
    assert [field.name for field in dataclasses.fields(StepPlan)] == [
        "step", "items", "new", "finished", "preempted", "blocks", "states",
    ]  # fmt: skip
    assert StepItem._fields == ("id", "tokens", "start", "blocks", "sample", "draft")
    assert Draft._fields == ("tokens", "parents")
    assert len(dataclasses.fields(NewSequence)) == 8
    assert (len(BlockTransfers._fields), len(StateTransfers._fields)) == (5, 2)


def test_a_decode_step_does_not_resend_block_tables():
    encoder, blocks = PlanEncoder(), tuple(range(1000))
    first = StepPlan(0, (StepItem(0, (1,), 15_999, blocks, True),))
    second = StepPlan(1, (StepItem(0, (2,), 16_000, (*blocks, 1000), True),))
    assert len(encoder.encode(first)) > 8000
    assert len(encoder.encode(second)) < 250


def test_a_table_with_another_block_inside_is_sent_anew():
    encoder, decoder = PlanEncoder(), PlanDecoder()
    for blocks in ((1, 2, 3), (1, 9, 3), (1,), (1, 4)):
        plan = StepPlan(0, (StepItem(0, (1,), 0, blocks, True),))
        assert decoder.decode(encoder.encode(plan)).items[0].blocks == blocks


def test_tables_are_forgotten_with_their_sequences():
    encoder, decoder = PlanEncoder(), PlanDecoder()
    for plan in (
        StepPlan(0, tuple(StepItem(id, (1,), 0, (id,), True) for id in range(4))),
        StepPlan(1, finished=(0, 1), preempted=(2,)),
    ):
        decoder.decode(encoder.encode(plan))
    assert list(encoder._tables) == list(decoder._tables) == [3]


@pytest.mark.parametrize("cut", [-1, 9])
def test_bytes_of_the_wrong_length_are_refused(cut):
    frame = PlanEncoder().encode(StepPlan(0))
    with pytest.raises(WeftError, match="came as"):
        PlanDecoder().decode(frame[:cut] if cut < 0 else frame + b"x" * cut)


def test_a_record_of_an_unknown_type_is_refused():
    new = NewSequence(0, "a", (1,), SamplingParams(), 0, 0, ())
    frame = PlanEncoder().encode(StepPlan(0, new=(new,)))
    assert json.dumps("NewSequence").encode() in frame
    with pytest.raises(WeftError, match="Newsequence"):
        PlanDecoder().decode(frame.replace(b'"NewSequence"', b'"Newsequence"'))
