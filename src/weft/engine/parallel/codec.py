"""Plans as bytes, for ranks that execute what rank 0 has scheduled. Nothing is ever unpickled.

Numbers travel as one array of int64; sequences that are new, with how they draw, as JSON. A block
table is sent once and then only grows, so a decode step of hundreds of sequences takes a few bytes
each: encoder and decoder remember the tables of the sequences they have seen, and forget them by
the same rules.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import WeftError
from weft.sched.plan import (
    BlockTransfers,
    Draft,
    NewSequence,
    StateTransfers,
    StepItem,
    StepPlan,
)
from weft.spec import SamplingParams, structured

_SIZES = struct.Struct("<II")
_Pair = tuple[int, int]

# What may stand in a new sequence; a name that is not here is refused.
_RECORDS: dict[str, type] = {
    "NewSequence": NewSequence,
    "SamplingParams": SamplingParams,
    **{name: each for name, each in vars(structured).items() if is_dataclass(each)},
}
_TYPE = "type"


class PlanEncoder:
    """Turns the plans of one scheduler into bytes, in their order."""

    def __init__(self) -> None:
        self._tables: dict[int, tuple[int, ...]] = {}

    def encode(self, plan: StepPlan) -> bytes:
        """Return one plan as bytes."""
        _forget(self._tables, plan)
        heads, parts = [], ([], [], [], [])
        for item in plan.items:
            kept = self._num_known(item)
            draft = item.draft or Draft(())
            pieces = (item.tokens, item.blocks[kept:], draft.tokens, draft.parents)
            heads.append(
                (item.id, item.start, item.sample, item.draft is not None, kept, *map(len, pieces))
            )
            for part, piece in zip(parts, pieces, strict=True):
                part.append(piece)
        moves = (*plan.blocks, *plan.states)
        counts = (plan.step, len(plan.items), len(plan.finished), len(plan.preempted))
        numbers = [*counts, *map(len, moves), *chain.from_iterable(heads)]
        for part in parts:
            numbers.extend(chain.from_iterable(part))
        numbers += (*plan.finished, *plan.preempted)
        numbers.extend(chain.from_iterable(chain.from_iterable(moves)))
        new = json.dumps([_to_json(each) for each in plan.new]).encode() if plan.new else b""
        array = np.array(numbers, dtype=np.int64)
        return _SIZES.pack(len(array), len(new)) + array.tobytes() + new

    def _num_known(self, item: StepItem) -> int:
        """Return how many blocks the decoder has already, and note the table."""
        known = self._tables.get(item.id, ())
        self._tables[item.id] = item.blocks
        return len(known) if item.blocks[: len(known)] == known else 0


class PlanDecoder:
    """Turns what one ``PlanEncoder`` has written back into plans, in order."""

    def __init__(self) -> None:
        self._tables: dict[int, tuple[int, ...]] = {}

    def decode(self, frame: bytes) -> StepPlan:
        """Return the plan that was encoded.

        Raises:
            WeftError: the bytes are not those of a plan.
        """
        num_numbers, num_json = _SIZES.unpack_from(frame)
        end = _SIZES.size + 8 * num_numbers
        if len(frame) != end + num_json:
            raise WeftError(f"a plan of {end + num_json} bytes came as {len(frame)}")
        numbers = _Numbers(np.frombuffer(frame, np.int64, num_numbers, _SIZES.size))
        step, num_items, num_finished, num_preempted = numbers.take(4)
        num_moves = numbers.take(len(BlockTransfers._fields) + len(StateTransfers._fields))
        heads = [numbers.take(9) for _ in range(num_items)]
        parts = [[numbers.take(head[column]) for head in heads] for column in range(5, 9)]
        finished, preempted = numbers.take(num_finished), numbers.take(num_preempted)
        moves = [numbers.pairs(count) for count in num_moves]
        _forget_ids(self._tables, (*finished, *preempted))
        return StepPlan(
            step=step,
            items=tuple(self._items(heads, parts)),
            new=tuple(_from_json(each) for each in json.loads(frame[end:] or "[]")),
            finished=finished,
            preempted=preempted,
            blocks=BlockTransfers(*moves[: len(BlockTransfers._fields)]),
            states=StateTransfers(*moves[len(BlockTransfers._fields) :]),
        )

    def _items(
        self, heads: Sequence[Sequence[int]], parts: Sequence[Sequence[tuple[int, ...]]]
    ) -> Iterator[StepItem]:
        for head, tokens, blocks, guesses, parents in zip(heads, *parts, strict=True):
            id, start, sample, has_draft, kept = head[:5]
            blocks = (*self._tables.get(id, ())[:kept], *blocks)
            self._tables[id] = blocks
            draft = Draft(guesses, parents) if has_draft else None
            yield StepItem(id, tokens, start, blocks, bool(sample), draft)


class _Numbers:
    """Reads an array from front to back."""

    def __init__(self, numbers: NDArray[np.int64]) -> None:
        self._numbers = numbers.tolist()
        self._place = 0

    def take(self, count: int) -> tuple[int, ...]:
        """Return the next numbers."""
        found = tuple(self._numbers[self._place : self._place + count])
        self._place += count
        return found

    def pairs(self, count: int) -> tuple[_Pair, ...]:
        """Return the next pairs of numbers."""
        found = self.take(2 * count)
        return tuple(zip(found[::2], found[1::2], strict=True))


def _forget(tables: dict[int, tuple[int, ...]], plan: StepPlan) -> None:
    _forget_ids(tables, (*plan.finished, *plan.preempted))


def _forget_ids(tables: dict[int, tuple[int, ...]], ids: Iterable[int]) -> None:
    for id in ids:
        tables.pop(id, None)


def _to_json(value: Any) -> Any:
    """Return records as objects that name their type, tuples as lists."""
    if is_dataclass(value):
        named = {field.name: _to_json(getattr(value, field.name)) for field in fields(value)}
        return {_TYPE: type(value).__name__, **named}
    return [_to_json(each) for each in value] if isinstance(value, tuple) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(each) for each in value)
    if not isinstance(value, dict):
        return value
    name = value.pop(_TYPE, None)
    if name not in _RECORDS:
        raise WeftError(f"a plan has a record of the unknown type {name!r}")
    return _RECORDS[name](**{key: _from_json(each) for key, each in value.items()})
