"""A ``StructuredSpec`` as text in the grammar language of llguidance.

The result is a list of grammars in JSON, of which the first is the start and names the others
(``@name``). Forcing is off: a text that can only go on in one way may still be cut into tokens in
any way, so the mask is the exact set of tokens with a valid continuation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any, assert_never

from weft.spec.structured import (
    EBNF,
    AfterThoughts,
    Choice,
    Fields,
    JSONObject,
    JSONSchema,
    Regex,
    StructuredSpec,
    Tagged,
    is_bare,
)

_HEADER = '%llguidance {"no_forcing": true}\n'
_ANY_TEXT = r"(.|\n)*"
_EMPTY = '""'


def to_source(
    spec: StructuredSpec, llguidance: ModuleType, special_ids: Mapping[str, int] | None = None
) -> str:
    """Return the grammar of a structure.

    ``special_ids`` are the special tokens by their texts. Where a fixed text of ``Tagged`` contains
    one, the token itself has to be drawn; anywhere else such a text is spelt.

    Raises:
        ValueError: a GBNF grammar with a wrong syntax.
    """
    writer = _Writer(llguidance, special_ids or {})
    start = _HEADER + f"start: {writer.reference(spec)}\n"
    return json.dumps({"grammars": [{"name": "start", "lark_grammar": start}, *writer.grammars]})


class _Writer:
    """Collects the grammars a structure is made of."""

    def __init__(self, llguidance: ModuleType, special_ids: Mapping[str, int]) -> None:
        self.grammars: list[dict[str, Any]] = []
        self._llguidance = llguidance
        self._special_ids = special_ids
        # A group, so that splitting keeps what it splits at.
        texts = sorted(special_ids, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, texts))})") if texts else None

    def reference(self, spec: StructuredSpec | Fields) -> str:
        """Add the grammar of a structure and return what refers to it."""
        place: dict[str, Any] = {"name": f"part{len(self.grammars)}"}
        self.grammars.append(place)
        place |= self._body(spec)
        return f"@{place['name']}"

    def _body(self, spec: StructuredSpec | Fields) -> dict[str, Any]:
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
            case Fields():
                return {"lark_grammar": self._fields(spec)}
            case AfterThoughts():
                return {"lark_grammar": self._after_thoughts(spec)}
            case _:
                assert_never(spec)

    def _tagged(self, spec: Tagged) -> str:
        skipped = len(spec.trigger or "")
        of_tag = 0 if spec.opening else skipped
        bodies = [
            " ".join(
                (
                    *self._fixed(tag.begin[of_tag:]),
                    self.reference(tag.content),
                    *self._fixed(tag.end),
                )
            )
            for tag in spec.tags
        ]
        tag_rule = "tag: " + " | ".join(bodies) + "\n"
        # Without a text around the group, tags that a trigger begins come one by one.
        many = not spec.only_one and (bool(spec.opening) or spec.trigger is None)
        more = f"({' '.join((*self._fixed(spec.separator), 'tag'))})*" if many else ""
        parts = (*self._fixed(spec.opening[skipped:]), "tag", more, *self._fixed(spec.closing))
        group = " ".join(part for part in parts if part)
        if spec.trigger is None:
            instead = "" if spec.otherwise is None else f" | {self.reference(spec.otherwise)}"
            return f"start: {group}{instead}\n{tag_rule}"
        start = f"trigger {group} | TEXT" if spec.only_one else f"(trigger {group})* TEXT"
        text = f"TEXT: /{_ANY_TEXT}/\n"
        return f"start: {start}\n{text}{self._trigger(spec.trigger)}{tag_rule}"

    def _trigger(self, text: str) -> str:
        if text in self._special_ids:  # never part of a text
            return f"trigger: TEXT <[{self._special_ids[text]}]>\n"
        # A lazy lexeme wins as soon as it matches, so TEXT never gets to contain the trigger.
        return _lazy("trigger", text)

    def _fixed(self, text: str) -> tuple[str, ...]:
        """Return a fixed text, special tokens as themselves."""
        parts = [text] if self._special is None else self._special.split(text)
        return tuple(
            f"<[{self._special_ids[part]}]>" if part in self._special_ids else _literal(part)
            for part in parts
            if part
        )

    def _fields(self, spec: Fields) -> str:
        schema = spec.value
        required = schema.get("required", ())
        definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        names, rules = [], []
        for index, (name, of_value) in enumerate(spec.properties.items()):
            rule = f"field{index}"
            names.append(rule if name in required else f"{rule}?")
            begin = _literal(spec.begin.replace("NAME", name))
            if is_bare(of_value):
                rules.append(f"{rule}: {begin} value{index}\n{_bare(index, of_value, spec)}")
                continue
            if isinstance(of_value, dict):
                of_value = {**of_value, **definitions}
            value = self.reference(JSONSchema.of(of_value))
            rules.append(f"{rule}: {begin} {value} {_literal(spec.end)}\n")
        return f"start: {' '.join(names) or _EMPTY}\n{''.join(rules)}"

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


def _bare(index: int, schema: Mapping[str, Any], spec: Fields) -> str:
    """Return the rule of a text that goes on to the first ``spec.end``, which it includes."""
    end = _literal(spec.end)
    options = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if options is not None:
        texts = [option for option in options if isinstance(option, str)]
        return f"value{index}: ({' | '.join(map(_literal, texts))}) {end}\n"
    least, most = schema.get("minLength", 0), schema.get("maxLength", "")
    text = f"/(?s:.){{{least},{most}}}/"
    if spec.forbidden:
        wrong = "|".join(re.escape(part).replace("/", "\\/") for part in spec.forbidden)
        text = f"({text} & ~/(?s:.*)({wrong})(?s:.*)/)"
    return f"value{index}[lazy]: VALUE{index}\nVALUE{index}: {text} {end}\n"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
