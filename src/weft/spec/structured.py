"""What the text of a completion must look like.

A structure is a value: hashable, comparable, free of any tokenizer. The engine turns it into a
grammar over the tokens of its own vocabulary and lets only those be drawn that some valid text
goes on with; an end token can be drawn exactly where the text is complete. So a completion that
ends with ``STOP`` and without a stop text is valid; one that ends with ``LENGTH`` was cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weft.core.errors import RequestError

PARAM = "structured"


@dataclass(frozen=True)
class JSONSchema:
    """A JSON value that a schema accepts; see ``of`` for schemas that are not text.

    Attributes:
        schema: The schema as JSON text. Properties come in the order in which it lists them.
        compact: No white space between the parts of the value.
    """

    schema: str
    compact: bool = False

    def __post_init__(self) -> None:
        try:
            value = json.loads(self.schema, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise RequestError(
                f"the schema is not JSON: {error}", fix="send a JSON schema", param=PARAM
            ) from error
        if not isinstance(value, dict | bool):
            raise RequestError(
                f"the schema is {self.schema[:80]}; a schema is an object",
                fix='send one such as {"type": "object"}',
                param=PARAM,
            )

    @classmethod
    def of(cls, schema: Mapping[str, Any] | bool | str, *, compact: bool = False) -> JSONSchema:
        """Take a schema as text or as the value it stands for."""
        if isinstance(schema, str):
            return cls(schema, compact)
        return cls(json.dumps(schema, ensure_ascii=False), compact)


@dataclass(frozen=True)
class JSONObject:
    """Any JSON object."""

    compact: bool = False


@dataclass(frozen=True)
class Regex:
    """A text that a regular expression matches from its beginning to its end.

    Attributes:
        pattern: In the syntax of Rust's ``regex``: Python's without look-around, word boundaries
            and back references.
    """

    pattern: str

    def __post_init__(self) -> None:
        _not_empty("the pattern", self.pattern)


@dataclass(frozen=True)
class EBNF:
    """A text of a context-free grammar.

    Attributes:
        grammar: In Lark's syntax, whose first rule is ``start``, or in GBNF (``root ::= ...``).
            Terminals match greedily.
    """

    grammar: str

    def __post_init__(self) -> None:
        _not_empty("the grammar", self.grammar)


@dataclass(frozen=True)
class Choice:
    """One of some texts."""

    options: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.options or any(not option for option in self.options):
            raise RequestError(
                f"choice has {len(self.options)} texts; it needs one, and none may be empty",
                fix="list the texts to choose from",
                param=PARAM,
            )


@dataclass(frozen=True)
class Fields:
    """The properties of an object one by one, each between texts of its own.

    Properties come in the order in which the schema lists them. One whose type is "string" is
    written as it is, any other as JSON (Qwen3-Coder's calls).

    Attributes:
        schema: Of an object, as JSON text.
        begin: Before each value, with NAME for the property's.
        end: Behind each value.
        forbidden: What a string must not contain, as its reader would take it for an end.
    """

    schema: str
    begin: str
    end: str
    forbidden: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = sorted(set(self.value) - _FIELDS_KEYWORDS)
        if wrong:
            raise RequestError(
                f"the schema says {wrong[0]!r}, which cannot be enforced property by property",
                fix="describe the object by type, properties and required",
                param=PARAM,
            )
        missing = sorted(set(self.value.get("required", ())) - set(self.properties))
        if missing:
            raise RequestError(
                f"the schema requires {missing[0]!r} and does not describe it",
                fix="list it in properties",
                param=PARAM,
            )
        for name, schema in self.properties.items():
            _check_field(name, schema)

    @property
    def value(self) -> dict[str, Any]:
        """The schema."""
        return json.loads(self.schema)

    @property
    def properties(self) -> dict[str, Any]:
        """The schemas of the properties, by name."""
        return self.value.get("properties", {})


# What an object's schema may say where its properties are written one by one.
_FIELDS_KEYWORDS = {
    "type", "properties", "required", "additionalProperties", "title", "description", "$schema",
    "$defs", "definitions", "strict",
}  # fmt: skip
_BARE_STRING_KEYWORDS = {
    "type", "enum", "const", "title", "description", "default", "examples", "minLength",
    "maxLength",
}  # fmt: skip


def is_bare(schema: Any) -> bool:
    """Return whether a property with this schema is written as it is, not as JSON."""
    return isinstance(schema, dict) and schema.get("type") == "string"


def _check_field(name: str, schema: Any) -> None:
    if not name or any(letter in ">\n" or letter.isspace() for letter in name):
        raise RequestError(
            f"the property {name!r} cannot be written in a tag",
            fix="name it without white space and '>'",
            param=PARAM,
        )
    wrong = sorted(set(schema) - _BARE_STRING_KEYWORDS) if is_bare(schema) else []
    if wrong:
        raise RequestError(
            f"the property {name!r} says {wrong[0]!r}, which cannot be enforced for a bare text",
            fix="leave it out",
            param=PARAM,
        )


@dataclass(frozen=True)
class Tag:
    """A structure between two fixed texts, such as the arguments of one tool in its call."""

    begin: str
    content: JSONSchema | Fields
    end: str

    def __post_init__(self) -> None:
        _not_empty("the beginning of a tag", self.begin)


@dataclass(frozen=True)
class Tagged:
    """Tags one after the other, or within free text.

    Attributes:
        tags: Each of them may come, any number of times.
        separator: Between two tags.
        trigger: None: the text is one or more tags. A text that all tags (or ``opening``) begin
            with: free text may stand before, between and after tags, and whoever writes this text
            writes a tag.
        only_one: At most one tag; with a trigger, the text ends with it.
        otherwise: Without a trigger: what the text may be instead; it must not begin as tags do.
        opening: Before the first of several tags.
        closing: Behind the last.
    """

    tags: tuple[Tag, ...]
    separator: str = ""
    trigger: str | None = None
    only_one: bool = False
    otherwise: JSONSchema | JSONObject | None = None
    opening: str = ""
    closing: str = ""

    def __post_init__(self) -> None:
        if not self.tags:
            raise RequestError("there is no tag", fix="name at least one", param=PARAM)
        trigger = self.trigger
        if trigger is None:
            return
        begins = [self.opening] if self.opening else [tag.begin for tag in self.tags]
        wrong = next((begin for begin in begins if not begin.startswith(trigger)), None)
        if wrong is not None or not trigger:
            raise RequestError(
                f"the tag {wrong!r} does not begin with the trigger {trigger!r}",
                fix="give the text that all tags begin with",
                param=PARAM,
            )


@dataclass(frozen=True)
class AfterThoughts:
    """A structure that begins where free thoughts end.

    Attributes:
        content: What follows them, after white space.
        opening: Tag that begins the thoughts; they may be left out. None: the prompt has opened
            them already, so the text begins inside.
        closing: Tag that ends them.
    """

    content: JSONSchema | JSONObject | Regex | EBNF | Choice | Tagged
    closing: str
    opening: str | None = None

    def __post_init__(self) -> None:
        _not_empty("the tag that ends the thoughts", self.closing)


StructuredSpec = JSONSchema | JSONObject | Regex | EBNF | Choice | Tagged | AfterThoughts


def _not_empty(what: str, text: str) -> None:
    if not text:
        raise RequestError(f"{what} is empty", fix="leave it out", param=PARAM)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
