"""A ``StructuredSpec`` as text in the grammar language of llguidance.

The result is a list of grammars in JSON, of which the first is the start and names the others
(``@name``). Forcing is off: a text that can only go on in one way may still be cut into tokens in
any way, so the mask is the exact set of tokens with a valid continuation.
"""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any, assert_never

from weft.spec.structured import (
    EBNF,
    AfterThoughts,
    Choice,
    JSONObject,
    JSONSchema,
    Regex,
    StructuredSpec,
    Tagged,
)

_HEADER = '%llguidance {"no_forcing": true}\n'
_ANY_TEXT = r"(.|\n)*"


def to_source(spec: StructuredSpec, llguidance: ModuleType) -> str:
    """Return the grammar of a structure.

    Raises:
        ValueError: a GBNF grammar with a wrong syntax.
    """
    writer = _Writer(llguidance)
    start = _HEADER + f"start: {writer.reference(spec)}\n"
    return json.dumps({"grammars": [{"name": "start", "lark_grammar": start}, *writer.grammars]})


class _Writer:
    """Collects the grammars a structure is made of."""

    def __init__(self, llguidance: ModuleType) -> None:
        self.grammars: list[dict[str, Any]] = []
        self._llguidance = llguidance

    def reference(self, spec: StructuredSpec) -> str:
        """Add the grammar of a structure and return what refers to it."""
        place: dict[str, Any] = {"name": f"part{len(self.grammars)}"}
        self.grammars.append(place)
        place |= self._body(spec)
        return f"@{place['name']}"

    def _body(self, spec: StructuredSpec) -> dict[str, Any]:
        match spec:
            case JSONSchema():
                return {"json_schema": _with_options(spec)}
            case JSONObject():
                return self._body(JSONSchema('{"type": "object"}', spec.compact))
            case Regex():
                found = json.loads(self._llguidance.LLMatcher.grammar_from_regex(spec.pattern))
                return {"lark_grammar": found["grammars"][0]["lark_grammar"]}
            case EBNF():
                return {"lark_grammar": self._llguidance.grammar_from("grammar", spec.grammar)}
            case Choice():
                return {"lark_grammar": "start: " + " | ".join(map(_literal, spec.options))}
            case Tagged():
                return {"lark_grammar": self._tagged(spec)}
            case AfterThoughts():
                return {"lark_grammar": self._after_thoughts(spec)}
            case _:
                assert_never(spec)

    def _tagged(self, spec: Tagged) -> str:
        skipped = len(spec.trigger or "")
        bodies = [
            " ".join(
                (
                    *_literals(tag.begin[skipped:]),
                    self.reference(tag.content),
                    *_literals(tag.end),
                )
            )
            for tag in spec.tags
        ]
        tag_rule = "tag: " + " | ".join(bodies) + "\n"
        if spec.trigger is None:
            more = "" if spec.only_one else f" ({' '.join((*_literals(spec.separator), 'tag'))})*"
            instead = "" if spec.otherwise is None else f" | {self.reference(spec.otherwise)}"
            return f"start: tag{more}{instead}\n{tag_rule}"
        # A lazy lexeme wins as soon as it matches, so TEXT never gets to contain the trigger.
        start = "trigger tag | TEXT" if spec.only_one else "(trigger tag)* TEXT"
        trigger = _lazy("trigger", spec.trigger)
        return f"start: {start}\nTEXT: /{_ANY_TEXT}/\n{trigger}{tag_rule}"

    def _after_thoughts(self, spec: AfterThoughts) -> str:
        content = self.reference(spec.content)
        thoughts = "thoughts SPACE"
        if spec.opening is not None:
            thoughts = f"({_literal(spec.opening)} {thoughts})?"
        return f"start: {thoughts} {content}\nSPACE: /\\s*/\n" + _lazy("thoughts", spec.closing)


def _with_options(spec: JSONSchema) -> dict[str, Any] | bool:
    schema = json.loads(spec.schema)
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    # Options are ours, whatever a schema says: lenient ones would accept what it forbids.
    options = {"whitespace_flexible": not spec.compact, "lenient": False, "coerce_one_of": False}
    return {**schema, "x-guidance": options}


def _lazy(name: str, end: str) -> str:
    """Return a rule for any text up to the first occurrence of ``end``, which it includes."""
    return f"{name}[lazy]: TO_{name.upper()}\nTO_{name.upper()}: /{_ANY_TEXT}/ {_literal(end)}\n"


def _literals(text: str) -> tuple[str, ...]:
    return (_literal(text),) if text else ()


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
