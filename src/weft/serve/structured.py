"""The fields that say what an answer must look like: OpenAI's and vLLM's names for it.

All of them end as one ``StructuredSpec``. Whatever is wrong with it, wherever that is found, the
refusal names the field the client has sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from weft.core.errors import RequestError
from weft.serve.body import Body
from weft.spec.structured import (
    EBNF,
    PARAM,
    Choice,
    JSONObject,
    JSONSchema,
    Regex,
)

Schema = dict[str, Any]
AnswerSpec = JSONSchema | JSONObject | Regex | EBNF | Choice


class Structure(NamedTuple):
    """What an answer must look like, and which field says so."""

    field: str
    spec: AnswerSpec


class JSONSchemaBody(Body):
    """OpenAI's named schema."""

    name: str
    schema_: Schema = Field({}, alias="schema")
    description: str | None = None
    # Answers are held to the schema either way.
    strict: bool | None = None


class ResponseFormatBody(Body):
    """OpenAI's ``response_format``."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchemaBody | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise RequestError(
                f"response_format has the type {self.type!r} and "
                f"{'no' if self.json_schema is None else 'a'} json_schema",
                fix='send "json_schema" with the type "json_schema" and with no other',
                param="response_format",
            )
        return self

    @property
    def spec(self) -> AnswerSpec | None:
        if self.json_schema is not None:
            return JSONSchema.of(self.json_schema.schema_)
        return JSONObject() if self.type == "json_object" else None


class StructuredOutputsBody(Body):
    """vLLM's ``structured_outputs``; one of the first five."""

    json_: Schema | str | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    disable_any_whitespace: bool = False

    @property
    def spec(self) -> AnswerSpec:
        compact = self.disable_any_whitespace
        found: list[AnswerSpec] = []
        if self.json_ is not None:
            found.append(JSONSchema.of(self.json_, compact=compact))
        if self.json_object:
            found.append(JSONObject(compact))
        if self.regex is not None:
            found.append(Regex(self.regex))
        if self.choice is not None:
            found.append(Choice(tuple(self.choice)))
        if self.grammar is not None:
            found.append(EBNF(self.grammar))
        if len(found) != 1:
            raise RequestError(
                f"structured_outputs says {len(found)} things",
                fix="send one of json, json_object, regex, choice and grammar",
                param=PARAM,
            )
        return found[0]


class StructuredFields(Body):
    """The fields both endpoints share; at most one of them asks for something."""

    response_format: ResponseFormatBody | None = None
    structured_outputs: StructuredOutputsBody | None = None
    # vLLM's older names.
    guided_json: Schema | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None

    def structure(self) -> Structure | None:
        """Return what the answer must look like.

        Raises:
            RequestError: the fields contradict each other, or one of them is wrong in itself.
        """
        found = [
            Structure(field, spec)
            for field in StructuredFields.model_fields
            if (value := getattr(self, field)) is not None
            and (spec := _spec_of(field, value)) is not None
        ]
        if len(found) > 1:
            raise RequestError(
                f"{found[0].field} and {found[1].field} both say what the answer looks like",
                fix="send one of them",
                param=found[1].field,
            )
        return found[0] if found else None


def _spec_of(field: str, value: Any) -> AnswerSpec | None:
    with blame(field):
        match field:
            case "guided_json":
                return JSONSchema.of(value)
            case "guided_regex":
                return Regex(value)
            case "guided_choice":
                return Choice(tuple(value))
            case "guided_grammar":
                return EBNF(value)
            case _:
                return value.spec


@contextlib.contextmanager
def blame(field: str | None) -> Iterator[None]:
    """Let refusals of a structure name the client's field instead of the engine's parameter."""
    try:
        yield
    except RequestError as error:
        if error.param == PARAM and field is not None:
            error.param = field
        raise
