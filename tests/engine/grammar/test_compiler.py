from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.engine.grammar.support import BytesTokenizer, ids_of
from weft.core.errors import MissingExtraError, RequestError
from weft.engine.grammar import compiler as module
from weft.engine.grammar.compiler import GrammarCompiler
from weft.spec.structured import EBNF, JSONSchema, Regex

TOKENS = tuple(bytes([byte]) for byte in range(128))


def make_compiler() -> GrammarCompiler:
    return GrammarCompiler(BytesTokenizer(*TOKENS), 129)


def test_one_structure_is_compiled_once_however_many_ask_at_the_same_time():
    compiler, barrier = make_compiler(), threading.Barrier(8)

    def ask(_: int) -> set[int]:
        barrier.wait()
        return ids_of(compiler.start(Regex("[ab]+")).mask((128,)))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert answers == [set(b"ab")] * 8
    assert compiler.num_compiled == 1
    compiler.start(Regex("[bc]+"))
    assert compiler.num_compiled == 2


def test_the_least_recently_used_grammar_makes_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "NUM_CACHED", 2)
    compiler = make_compiler()
    for pattern in "abaca":
        compiler.start(Regex(pattern))
    assert compiler.num_compiled == 3
    compiler.start(Regex("b"))
    assert compiler.num_compiled == 4


def test_a_refusal_is_not_remembered_as_a_grammar():
    compiler = make_compiler()
    for _ in range(2):
        with pytest.raises(RequestError):
            compiler.start(Regex("("))
    assert compiler.num_compiled == 0


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (Regex("a("), "unclosed group"),
        (Regex("(?=a)a"), "look-around"),
        (EBNF("start: b"), 'unknown name: "b"'),
        (EBNF('root ::= ("a"'), "Expected '\\)'"),
        (EBNF("start: start"), "no token"),
        (JSONSchema('{"type": "objekt"}'), "Invalid type: objekt"),
        (JSONSchema('{"not": {}}'), "Unimplemented keys"),
        (JSONSchema('{"not": {}, "x-guidance": {"lenient": true}}'), "Unimplemented keys"),
        (JSONSchema("false"), "anyOf|empty|false"),
        (JSONSchema('{"$ref": "#/$defs/x"}'), "does not exist"),
        (JSONSchema('{"type": "integer", "minimum": 3, "maximum": 1}'), "Unsatisfiable"),
        (Regex("\ud800"), "surrogates"),
        (JSONSchema('{"const": "\\ud800"}'), "hex escape"),
        (EBNF("start: " + "(" * 10**5 + '"a"' + ")" * 10**5), "nested"),
        (EBNF("root ::= " + "(" * 10**5 + '"a"' + ")" * 10**5), "recursion"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_the_reason(spec, reason: str):
    with pytest.raises(RequestError, match=reason) as caught:
        make_compiler().start(spec)
    assert caught.value.param == "structured"
    assert len(str(caught.value)) < 1000


def test_without_the_extra_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match="weft\\[grammar\\]"):
        make_compiler().start(Regex("a"))
