"""Random walks through the masks of random schemas end in JSON that the schema accepts."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.grammar.support import accepts, ids_of, start
from weft.spec.structured import JSONSchema

# Bytes, and pieces that cross the borders of strings, escapes and characters.
PIECES = (
    *(bytes([byte]) for byte in range(256)),
    b'{"', b'":', b'",', b'"}', b"]}", b'\\"', b"\\u", b"\\u00", b"e9", b"\xf0\x9f", b"\x99\x82",
    b"true", b"null", b"12", b"-0", b".5", b", ", b'["', "é".encode(), b"<|end|>",
)  # fmt: skip
END = len(PIECES)

names = st.text(min_size=1, max_size=3)
scalars = st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4)
leaves = st.one_of(
    st.builds(lambda value: {"const": value}, scalars),
    st.builds(lambda values: {"enum": values}, st.lists(scalars, min_size=1, max_size=3)),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["null", "boolean"]}]),
    st.builds(
        lambda low, size: {"type": "string", "minLength": low, "maxLength": low + size},
        st.integers(0, 2), st.integers(0, 3),
    ),
    st.builds(
        lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
        st.integers(-120, 120), st.integers(0, 150),
    ),
)  # fmt: skip


def _objects(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(
        lambda properties, keep: {
            "type": "object",
            "properties": properties,
            "required": [name for name, kept in zip(properties, keep, strict=False) if kept],
            "additionalProperties": False,
        },
        st.dictionaries(names, inner, max_size=3),
        st.lists(st.booleans(), min_size=3, max_size=3),
    )


def _arrays(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(
        lambda items, low, size: {
            "type": "array", "items": items, "minItems": low, "maxItems": low + size,
        },
        inner, st.integers(0, 2), st.integers(0, 2),
    )  # fmt: skip


def _unions(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=2))


schemas = st.recursive(
    leaves, lambda inner: _objects(inner) | _arrays(inner) | _unions(inner), max_leaves=5
)


@settings(max_examples=150, deadline=None)
@given(schema=schemas, seed=st.integers(0, 2**32))
def test_random_walks_give_valid_json(schema: dict[str, Any], seed: int):
    draws = random.Random(seed)
    state = start(JSONSchema.of(schema, compact=True), *PIECES)
    text = b""
    for _ in range(2000):
        allowed = sorted(ids_of(state.mask((END,))))
        token = draws.choice(allowed)
        if token == END:
            break
        state.accept(token)
        text += PIECES[token]
    else:
        raise AssertionError("a bounded schema has no end")
    assert accepts(schema, json.loads(text), schema), text
