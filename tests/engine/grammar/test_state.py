"""The mask of every state against brute force over the vocabulary."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from tests.engine.grammar.support import ids_of, start
from weft.core.errors import RequestError
from weft.engine.grammar.state import GrammarError
from weft.spec.structured import EBNF, AfterThoughts, Choice, JSONSchema, Regex, Tag, Tagged

ALPHABET = "abc"
TOKENS = tuple(
    "".join(letters).encode()
    for size in (1, 2, 3)
    for letters in itertools.product(ALPHABET, repeat=size)
)
END = len(TOKENS)
# No text of these languages needs more letters to be completed from any of its prefixes.
MAX_MISSING = 5
PATTERNS = ["a*b", "(ab|ba)+c?", "a{2,4}", "(a|bb|ccc)*", "abcabc", "[^a]+a", "a?b?c?", "(abc)*"]


def may_go_on(pattern: re.Pattern[str], text: str) -> bool:
    """Say whether some text of the language begins with ``text``, by trying all endings."""
    return any(
        pattern.fullmatch(text + "".join(rest))
        for size in range(MAX_MISSING + 1)
        for rest in itertools.product(ALPHABET, repeat=size)
    )


@pytest.mark.parametrize("source", PATTERNS)
def test_mask_of_a_regex_is_brute_force_over_the_vocabulary(source: str):
    pattern = re.compile(source)
    draws = random.Random(source)
    known: dict[str, bool] = {}
    for _ in range(4):
        state, text = start(Regex(source), *TOKENS, spare=3), ""
        for _ in range(4):
            expected = set()
            for id, token in enumerate(TOKENS):
                longer = text + token.decode()
                if longer not in known:
                    known[longer] = may_go_on(pattern, longer)
                if known[longer]:
                    expected.add(id)
            inside = sorted(expected)
            if pattern.fullmatch(text):
                expected.add(END)
            assert ids_of(state.mask((END,))) == expected, text
            if not inside:
                assert state.must_end
                break
            token = draws.choice(inside)
            state.accept(token)
            text += TOKENS[token].decode()


def test_a_text_may_be_cut_into_tokens_in_any_way():
    state = start(Choice(("abc",)), b"a", b"ab", b"abc", b"b", b"bc", b"c")
    assert ids_of(state.mask(())) == {0, 1, 2}
    state.accept(0)
    assert ids_of(state.mask(())) == {3, 4}


def test_every_end_token_comes_exactly_where_the_text_is_complete():
    # Token 1 is text and was named as an end token: it ends and does not continue.
    state = start(Regex("a+b?"), b"a", b"b")
    assert ids_of(state.mask((1, 2))) == {0}
    state.accept(0)
    assert ids_of(state.mask((1, 2))) == {0, 1, 2}
    assert not state.must_end
    assert ids_of(state.mask((2,))) == {0, 1, 2}
    state.accept(1)
    assert ids_of(state.mask((2,))) == {2}
    assert state.must_end


def test_special_and_missing_tokens_are_never_text():
    state = start(Regex("(.|\n)*"), b"a", b"", b"<|end|>", spare=40)
    assert ids_of(state.mask(())) == {0, 2}


def test_half_a_character_is_a_token_too():
    first, second = "é".encode()
    state = start(Choice(("é", "è")), bytes([first]), bytes([second]), b"\xff")
    assert ids_of(state.mask(())) == {0}
    state.accept(0)
    assert ids_of(state.mask(())) == {1}


def test_asking_twice_gives_the_same_and_copies_are_independent():
    first = start(Regex("ab*"), b"a", b"b")
    assert ids_of(first.mask((2,))) == ids_of(first.mask((2,))) == {0}
    first.accept(0)
    assert ids_of(start(Regex("ab*"), b"a", b"b").mask((2,))) == {0}


def test_rollback_goes_back_to_any_state_before():
    state = start(Regex("(ab){1,3}"), b"a", b"b", b"ab")
    seen = []
    for token in (0, 1, 2, 0, 1):
        seen.append(ids_of(state.mask((3,))))
        state.accept(token)
    assert state.num_accepted == 5
    assert ids_of(state.mask((3,))) == {3}
    for num_back in (1, 2, 2):
        state.rollback(num_back)
        assert ids_of(state.mask((3,))) == seen[state.num_accepted]
    assert state.count_valid([2, 0, 0, 1]) == 2
    assert state.num_accepted == 0


def test_a_dead_end_and_a_wrong_token_are_errors_with_a_reason():
    state = start(Regex("a*(ab)?"), b"a")
    state.accept(0)
    with pytest.raises(GrammarError, match="cannot go on"):
        start(Regex("a(a|b)"), b"ab", b"a").accept(2)
    dead = start(EBNF('start: "a" "bc" | "ad"'), b"a", b"b")
    dead.accept(0)
    dead.accept(1)
    with pytest.raises(GrammarError, match="no token of the vocabulary"):
        dead.mask((2,))


def test_what_no_text_begins_is_refused_at_once():
    with pytest.raises(RequestError, match="no token of the vocabulary"):
        start(Regex("xyz"), b"a")


def test_tags_thoughts_and_triggers():
    number = JSONSchema('{"type": "integer", "maximum": 99, "minimum": 0}', compact=True)
    tags = (Tag("<a>", number, "</a>"), Tag("<b>", number, "</b>"))
    tokens = tuple(bytes([byte]) for byte in range(128))

    def reads(spec, text: str) -> tuple[int, bool]:
        """Return how many characters are let through and whether the text may end there."""
        state = start(spec, *tokens)
        count = state.count_valid(list(text.encode()))
        for byte in text.encode()[:count]:
            state.accept(byte)
        return count, 128 in ids_of(state.mask((128,)))

    one = Tagged(tags, "; ", only_one=True)
    many = Tagged(tags, "; ")
    free = Tagged(tags, trigger="<")
    either = Tagged(tags, otherwise=number)
    after = AfterThoughts(number, "</t>")
    for spec, text, expected in [
        (one, "<a>7</a>", (8, True)),
        (one, "<a>7</b>", (6, False)),
        (one, "<a>7</a>; <b>8</b>", (8, True)),
        (many, "<a>7</a>; <b>12</b>", (19, True)),
        (many, "text", (0, False)),
        (free, "x > y", (5, True)),
        (free, "x <a>1</a> y <b>2</b><", (22, False)),
        (free, "x < y", (3, False)),
        (Tagged(tags, trigger="<", only_one=True), "x <a>1</a> <", (10, True)),
        (Tagged(tags, trigger="<", only_one=True), "x <y", (3, False)),
        (Tagged(tags, trigger="<", only_one=True), "x", (1, True)),
        (either, "12", (2, True)),
        (either, "<b>12</b>", (9, True)),
        (after, "hm\n </t >", (9, False)),
        (after, "hm </t>\n\n42", (11, True)),
        (after, "hm </t>\n\nx", (9, False)),
        (AfterThoughts(number, "</t>", "<t>"), "42", (2, True)),
        (AfterThoughts(number, "</t>", "<t>"), "<t>x</t>42", (10, True)),
    ]:
        assert reads(spec, text) == expected, (spec, text)
