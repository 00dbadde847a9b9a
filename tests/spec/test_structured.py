from __future__ import annotations

import pytest

from weft.core.errors import RequestError
from weft.spec import EBNF, Choice, JSONSchema, Regex, SamplingParams, Tag, Tagged


def test_equal_structures_are_equal_keys_and_properties_keep_their_order():
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    assert JSONSchema.of(schema) == JSONSchema.of(dict(schema))
    assert JSONSchema.of(schema).schema.index('"b"') < JSONSchema.of(schema).schema.index('"a"')
    assert (
        len({JSONSchema.of(schema), JSONSchema.of(schema), JSONSchema.of(schema, compact=True)})
        == 2
    )
    assert JSONSchema.of('{"type": "null"}') == JSONSchema.of({"type": "null"})


@pytest.mark.parametrize(
    "make",
    [
        lambda: JSONSchema("{"),
        lambda: JSONSchema("[]"),
        lambda: JSONSchema('{"const": NaN}'),
        lambda: JSONSchema('{"items":' * 10**5 + "{}" + "}" * 10**5),
        lambda: Regex(""),
        lambda: EBNF(""),
        lambda: Choice(()),
        lambda: Choice(("a", "")),
        lambda: Tagged(()),
        lambda: Tagged((Tag("<a>", JSONSchema("{}"), ""),), trigger="<b"),
        lambda: Tag("", JSONSchema("{}"), ""),
        lambda: SamplingParams(structured=Regex("a"), ignore_eos=True),
    ],
)
def test_a_structure_that_is_wrong_in_itself_is_refused(make):
    with pytest.raises(RequestError) as caught:
        make()
    assert caught.value.param == "structured"


def test_a_structure_changes_the_distribution():
    assert SamplingParams(structured=Regex("a")).changes_distribution
    assert not SamplingParams().changes_distribution
