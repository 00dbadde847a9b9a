from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from weft.sched.keyed_slots import KeyedSlots, Taken

A, B, C, D = b"a", b"b", b"c", b"d"


def test_the_key_not_used_for_longest_gives_way():
    slots = KeyedSlots(2)
    assert (slots.take(A), slots.take(B)) == (Taken(0, None), Taken(1, None))
    slots.touch(A)
    assert slots.take(C) == Taken(1, B)
    assert list(slots) == [A, C]
    assert slots.slot(C) == 1


def test_pinned_keys_stay_and_a_full_pinned_store_takes_nobody():
    slots = KeyedSlots(2)
    slots.take(A)
    slots.take(B)
    slots.pin(A)
    assert slots.take(C) == Taken(1, B)
    slots.pin(C)
    assert slots.take(D) is None
    assert D not in slots
    slots.unpin()
    assert slots.take(D) == Taken(0, A)


def test_a_slot_changes_its_key_and_comes_loose():
    slots = KeyedSlots(1)
    slots.take(A)
    slots.pin(A)
    slots.rename(A, B)
    assert slots.slot(B) == 0
    assert slots.take(C) == Taken(0, B)
    assert slots.drop(C) == 0
    assert slots.drop(C) is None
    assert len(slots) == 0


class Machine(RuleBasedStateMachine):
    """A list of keys, oldest first, is the model."""

    keys = st.integers(0, 9).map(lambda number: bytes([number]))

    def __init__(self) -> None:
        super().__init__()
        self.slots = KeyedSlots(4)
        self.order: list[bytes] = []
        self.pinned: set[bytes] = set()

    @rule(key=keys)
    def take(self, key: bytes) -> None:
        if key in self.slots:
            self.slots.touch(key)
            self.order.remove(key)
            self.order.append(key)
            return
        loose = [old for old in self.order if old not in self.pinned]
        taken = self.slots.take(key)
        if len(self.order) == 4 and not loose:
            assert taken is None
            return
        assert taken is not None
        assert taken.evicted == (loose[0] if len(self.order) == 4 else None)
        if taken.evicted is not None:
            self.order.remove(taken.evicted)
        self.order.append(key)

    @rule(key=keys)
    def pin(self, key: bytes) -> None:
        self.slots.pin(key)
        self.pinned |= {key} & set(self.order)

    @rule()
    def unpin(self) -> None:
        self.slots.unpin()
        self.pinned.clear()

    @rule(key=keys)
    def drop(self, key: bytes) -> None:
        assert (self.slots.drop(key) is None) == (key not in self.order)
        self.order = [old for old in self.order if old != key]
        self.pinned.discard(key)

    @invariant()
    def agrees(self) -> None:
        self.slots.check()
        assert list(self.slots) == self.order
        assert self.slots.pinned == self.pinned
        assert len({self.slots.slot(key) for key in self.slots}) == len(self.order)


Machine.TestCase.settings = settings(max_examples=50, deadline=None)
test_any_operations_agree_with_a_list = Machine.TestCase
