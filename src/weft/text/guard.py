"""Keep special tokens that users write from becoming special tokens.

A chat template joins its own special tokens and the users' text into one string, where a user's
``<|im_end|>`` looks like the template's. So before rendering, each special token inside a message
is replaced by one private-use character; after encoding the template's own special tokens, the
stretches between them get their original text back and are encoded as text. Only the template can
write special tokens, whatever role a message has. A template that makes one out of its own text and
a role (``'<|' + role + '|>'``) still can: roles are for the caller to check.

Tokens that a tokenizer lists as added but not special (``<think>``, ``<tool_call>`` in Qwen3) are
vocabulary, not control: they are matched in all text, as everywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers

from weft.text.tokenizer import Tokenizer

_FIRST_PRIVATE, _LAST_PRIVATE = 0xF0000, 0x10FFFD


@dataclass(frozen=True)
class Encoded:
    """Tokens with the characters that each covers.

    Attributes:
        text: what was encoded.
        ids: token ids.
        spans: start and end character in ``text`` of each token.
    """

    text: str
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


class Guard:
    """The special tokens of a tokenizer, looked for in conversations."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._specials = sorted(tokenizer.special_texts(), key=len, reverse=True)
        self._beginnings = {text[:size] for text in self._specials for size in range(1, len(text))}
        self._longest = max(map(len, self._beginnings), default=0)

    def cover(self, values: Sequence[Any]) -> Cover:
        """Return stand-ins for all that must not act as a special token in these JSON values."""
        texts = list(_strings(values))
        whole = [token for token in self._specials if any(token in text for text in texts)]
        # A text may end in the beginning of a special token and meet the rest in the next one.
        ends = {end for text in texts if (end := self._open_end(text.rstrip()))}
        return Cover(self._tokenizer, whole, sorted(ends, key=len, reverse=True), texts)

    def _open_end(self, text: str) -> str:
        sizes = range(min(self._longest, len(text)), 0, -1)
        return next((text[-size:] for size in sizes if text[-size:] in self._beginnings), "")


class Cover:
    """Stand-ins for the special tokens in one conversation."""

    def __init__(
        self, tokenizer: Tokenizer, whole: Sequence[str], ends: Sequence[str], texts: Sequence[str]
    ) -> None:
        self._tokenizer = tokenizer
        private = (chr(code) for code in range(_FIRST_PRIVATE, _LAST_PRIVATE + 1))
        free = (char for char in private if not any(char in text for text in texts))
        self._stand_ins = dict(zip([*whole, *ends], free, strict=False))
        self._originals = {ord(char): text for text, char in self._stand_ins.items()}
        patterns = [re.escape(text) for text in whole]
        patterns += [re.escape(text) + r"(?=\s*\Z)" for text in ends]
        self._pattern = re.compile("|".join(patterns))

    def hide(self, value: Any) -> Any:
        """Return a copy of a JSON value with stand-ins in all its texts."""
        if not self._stand_ins:
            return value
        if isinstance(value, str):
            return self._pattern.sub(lambda match: self._stand_ins[match[0]], value)
        if isinstance(value, Mapping):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return value

    def restore(self, text: str) -> str:
        """Put the original texts back."""
        return text.translate(self._originals) if self._originals else text

    def encode(self, text: str) -> Encoded:
        """Encode a rendered text, in which special tokens are the template's own."""
        encoding = self._tokenizer.encoding(text, special=True)
        if not self._stand_ins:
            return Encoded(text, tuple(encoding.ids), tuple(encoding.offsets))
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        shift = 0  # how much longer the restored text is up to here
        for piece_ids, piece_spans, start, end in self._pieces(text, encoding):
            original = self.restore(text[start:end])
            if original != text[start:end]:
                literal = self._tokenizer.encoding(original, special=False)
                piece_ids, piece_spans = literal.ids, literal.offsets
                offset = start + shift
            else:
                offset = shift
            ids.extend(piece_ids)
            spans.extend((first + offset, last + offset) for first, last in piece_spans)
            shift += len(original) - (end - start)
        return Encoded(self.restore(text), tuple(ids), tuple(spans))

    def _pieces(
        self, text: str, encoding: tokenizers.Encoding
    ) -> Iterator[tuple[Sequence[int], Sequence[tuple[int, int]], int, int]]:
        """Yield special tokens and the stretches between them: ids, spans, start, end."""
        ids, spans = encoding.ids, encoding.offsets
        begin, start = 0, 0
        for index, id in enumerate(ids):
            if id in self._tokenizer.special_ids:
                first, last = spans[index]
                yield ids[begin:index], spans[begin:index], start, first
                yield ids[index : index + 1], spans[index : index + 1], first, last
                begin, start = index + 1, last
        yield ids[begin:], spans[begin:], start, len(text)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
