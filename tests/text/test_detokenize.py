from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from weft.text.detokenize import StreamDetokenizer


def _stream(tokenizer, ids, *, skip_special=True) -> list[str]:
    stream = StreamDetokenizer(tokenizer, skip_special=skip_special)
    return [*(stream.push(id) for id in ids), stream.flush()]


@given(ids=st.lists(st.integers(-3, 950)), skip_special=st.booleans())
def test_pieces_join_to_the_decoded_text_for_any_tokens(tokenizer, ids, skip_special):
    pieces = _stream(tokenizer, ids, skip_special=skip_special)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special=skip_special)


@given(text=st.text())
def test_valid_text_never_shows_a_replacement_character(tokenizer, text):
    pieces = _stream(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    assert sum(piece.count("\ufffd") for piece in pieces) == text.count("\ufffd")


def test_character_over_four_tokens_comes_out_whole(tokenizer):
    ids = [tokenizer.token_id(character) for character in ("ð", "Ł", "¦", "Ĭ")]
    assert _stream(tokenizer, ids) == ["", "", "", "🦊", ""]


def test_unfinished_character_becomes_a_replacement_at_the_end(tokenizer):
    ids = [tokenizer.token_id("ð"), tokenizer.token_id("Ł")]
    assert _stream(tokenizer, ids) == ["", "", "\ufffd"]


def test_special_tokens_are_skipped_or_shown(tokenizer):
    ids = [*tokenizer.encode("a"), tokenizer.token_id("<|im_end|>")]
    assert "".join(_stream(tokenizer, ids)) == "a"
    assert "".join(_stream(tokenizer, ids, skip_special=False)) == "a<|im_end|>"


def test_detokenizer_starts_afresh_after_flush(tokenizer):
    stream = StreamDetokenizer(tokenizer)
    stream.push(tokenizer.token_id("ð"))
    stream.flush()
    assert stream.push(tokenizer.token_id("a")) == "a"
