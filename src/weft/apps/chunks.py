"""Documents as passages that remember which lines they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

TARGET_CHARS = 900
MAX_CHARS = 1800

# A passage of enough text may end before a line that opens something new.
_OPENING = re.compile(r"(#{1,6} |def |class |async def |@|[-=]{3,}$)")


@dataclass(frozen=True)
class Chunk:
    """A passage: whole lines, numbered from 1, both ends included."""

    text: str
    first_line: int
    last_line: int


def split_lines(text: str) -> Iterator[Chunk]:
    """Yield the passages of a document, in order and without overlap.

    A passage grows to about ``TARGET_CHARS`` and ends at a blank line, a heading or a definition;
    at ``MAX_CHARS`` it ends wherever it is. Passages of blank lines only are left out.
    """
    lines: list[str] = []
    size, first = 0, 1
    for number, line in enumerate(text.splitlines(), 1):
        enough = size >= TARGET_CHARS and (not line.strip() or _OPENING.match(line))
        if lines and (enough or size + len(line) > MAX_CHARS):
            yield from _chunk(lines, first)
            lines, size, first = [], 0, number
        lines.append(line)
        size += len(line) + 1
    yield from _chunk(lines, first)


def _chunk(lines: list[str], first_line: int) -> Iterator[Chunk]:
    """Yield the lines without blank ones around them; an overlong line is cut into pieces."""
    kept = [index for index, line in enumerate(lines) if line.strip()]
    if not kept:
        return
    start, end = kept[0], kept[-1]
    text = "\n".join(lines[start : end + 1])
    for offset in range(0, len(text), MAX_CHARS):
        yield Chunk(text[offset : offset + MAX_CHARS], first_line + start, first_line + end)
