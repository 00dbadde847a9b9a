from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from weft.text.stop import StopMatcher

PIECES = st.lists(st.text("abc", max_size=4), max_size=12)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3).map(tuple)


def _naive(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """Cut at the stop string that is complete first, the longest of those."""
    for end in range(1, len(text) + 1):
        starts = [end - len(s) for s in stop if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(PIECES, STOPS)
def test_any_cutting_gives_what_a_search_in_the_whole_text_gives(pieces, stop):
    matcher = StopMatcher(stop)
    shown, stopped = "", False
    for piece in pieces:
        released, stopped = matcher.push(piece)
        shown += released
        if stopped:
            break
    if not stopped:
        shown += matcher.flush()
    assert (shown, stopped) == _naive("".join(pieces), stop)


@given(PIECES, STOPS)
def test_no_more_is_held_back_than_the_start_of_a_stop_string(pieces, stop):
    matcher = StopMatcher(stop)
    seen = shown = ""
    for piece in pieces:
        released, stopped = matcher.push(piece)
        if stopped:
            return
        seen, shown = seen + piece, shown + released
        held = seen[len(shown) :]
        assert shown + held == seen
        assert held == "" or any(text.startswith(held) for text in stop)


def test_stop_string_over_several_pieces_is_never_shown():
    matcher = StopMatcher(("\nUser:",))
    assert matcher.push("fine\nUs") == ("fine", False)
    assert matcher.push("er: more") == ("", True)
    assert matcher.matched == "\nUser:"
    assert matcher.push("even more") == ("", True)
    assert matcher.flush() == ""


def test_false_start_is_released():
    matcher = StopMatcher(("END",))
    assert matcher.push("E") == ("", False)
    assert matcher.push("at") == ("Eat", False)


def test_text_passes_through_without_stop_strings():
    assert StopMatcher(()).push("abc") == ("abc", False)
