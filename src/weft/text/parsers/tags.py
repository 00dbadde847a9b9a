"""Text between tags, in a stream."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["outside", "inside", "closed"]


class Piece(NamedTuple):
    """A stretch of text; "closed" stands where a closing tag was and has no text."""

    kind: Kind
    text: str


class TagSplitter:
    """Split a stream at an opening and a closing tag, which are removed.

    What could be the beginning of the tag that is waited for is held back until that is decided.

    >>> splitter = TagSplitter("<a>", "</a>")
    >>> splitter.push("x<a>y</")
    [Piece(kind='outside', text='x'), Piece(kind='inside', text='y')]
    >>> splitter.push("a>z")
    [Piece(kind='closed', text=''), Piece(kind='outside', text='z')]
    """

    def __init__(self, opening: str, closing: str, *, inside: bool = False) -> None:
        self.inside = inside
        self._tags = {False: opening, True: closing}
        self._held = ""

    def push(self, text: str) -> list[Piece]:
        """Add text; return what is decided."""
        self._held += text
        pieces: list[Piece] = []
        while True:
            tag = self._tags[self.inside]
            before, found, after = self._held.partition(tag)
            if not found:
                break
            self._emit(pieces, before)
            if self.inside:
                pieces.append(Piece("closed", ""))
            self.inside, self._held = not self.inside, after
        cut = len(self._held) - _num_begun(self._held, tag)
        self._emit(pieces, self._held[:cut])
        self._held = self._held[cut:]
        return pieces

    def flush(self) -> list[Piece]:
        """Return what was held back; the stream has ended."""
        pieces: list[Piece] = []
        self._emit(pieces, self._held)
        self._held = ""
        return pieces

    def _emit(self, pieces: list[Piece], text: str) -> None:
        if text:
            pieces.append(Piece("inside" if self.inside else "outside", text))


def _num_begun(text: str, tag: str) -> int:
    """Return the length of the longest suffix of ``text`` that begins ``tag``."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if tag.startswith(text[-size:]):
            return size
    return 0
