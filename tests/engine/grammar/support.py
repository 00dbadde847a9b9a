"""Small vocabularies, and a judge of JSON that shares no code with the engine."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import numpy as np

from tests.engine.support import make_llm, tokenizer
from weft.engine.grammar.compiler import GrammarCompiler
from weft.engine.grammar.state import GrammarState
from weft.engine.outputs import Completion
from weft.spec.sampling import SamplingParams
from weft.spec.structured import StructuredSpec

END = 1


class BytesTokenizer:
    """Tokens given as bytes, then one special token."""

    def __init__(self, *tokens: bytes) -> None:
        self.tokens = tokens

    def token_bytes(self, id: int) -> bytes:
        return self.tokens[id] if id < len(self.tokens) else b""

    def special_text(self, id: int) -> str | None:
        return "<|end|>" if id == len(self.tokens) else None

    def encode(self, text: str) -> list[int]:
        raise AssertionError("nothing is to be tokenized")


def start(spec: StructuredSpec, *tokens: bytes, spare: int = 0) -> GrammarState:
    """Begin a structure over a vocabulary of ``tokens``, a special one, and ``spare`` rows."""
    return GrammarCompiler(BytesTokenizer(*tokens), len(tokens) + 1 + spare).start(spec)


def ids_of(mask: np.ndarray) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(mask, bitorder="little")).tolist())


@functools.cache
def end_tokens() -> tuple[int, ...]:
    return make_llm().core.eos_ids


def generate(spec: StructuredSpec, num_samples: int = 1, llm=None, **fields) -> list[Completion]:
    params = SamplingParams(structured=spec, **({"max_tokens": 110, "seed": 0} | fields))
    return (llm or make_llm()).generate([[1, 2, 3]], params, num_samples=num_samples)


def decode(completion: Completion) -> str:
    return tokenizer().decode(completion.tokens)


def accepts(schema: dict[str, Any] | bool, value: Any, root: dict[str, Any]) -> bool:
    """Say whether a value meets a schema made of the keywords the tests use."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        target: Any = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        return accepts(target, value, root)
    checks = (
        "const" not in schema or _same(value, schema["const"]),
        "enum" not in schema or any(_same(value, item) for item in schema["enum"]),
        "anyOf" not in schema or any(accepts(item, value, root) for item in schema["anyOf"]),
        "type" not in schema or any(_is(value, kind) for kind in _listed(schema["type"])),
    )
    return all(checks) and _accepts_parts(schema, value, root)


def _accepts_parts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    if isinstance(value, dict):
        return _accepts_object(schema, value, root)
    if isinstance(value, list):
        size = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        fixed = schema.get("prefixItems", [])
        rest = [schema.get("items", True)] * (len(value) - len(fixed))
        parts = zip([*fixed, *rest], value, strict=False)
        return size and all(accepts(part, item, root) for part, item in parts)
    if isinstance(value, str):
        size = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        return size and re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return schema.get("minimum", value) <= value <= schema.get("maximum", value)
    return True


def _accepts_object(schema: dict[str, Any], value: dict[str, Any], root: dict[str, Any]) -> bool:
    known = schema.get("properties", {})
    extra = schema.get("additionalProperties", True)
    parts = ((known.get(name, extra), item) for name, item in value.items())
    complete = all(name in value for name in schema.get("required", []))
    return complete and all(accepts(part, item, root) for part, item in parts)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    kinds = {
        "object": dict, "array": list, "string": str, "integer": int, "number": int | float,
        "null": type(None),
    }  # fmt: skip
    return kind in kinds and isinstance(value, kinds[kind])


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _same(value: Any, other: Any) -> bool:
    return json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)
