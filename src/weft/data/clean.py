"""Cleaning: named filters that say how much they dropped and show examples.

The filters are the heuristics of Gopher (Rae et al. 2021, arXiv:2112.11446, appendix A1.1) and
StarCoder (Li et al. 2023, arXiv:2305.06161, section 3), each a predicate on one text.
"""

from __future__ import annotations

import collections
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from weft.data.document import Document

_NUM_EXAMPLES = 3
_EXCERPT_CHARS = 120


@dataclass(frozen=True)
class CleanConfig:
    """Which documents are dropped; 0 (or 1 for a largest share) switches a filter off.

    Attributes:
        min_chars: Drop texts shorter than this.
        max_line_chars: Drop texts with a longer line, as minified code and data have.
        min_printable_share: Drop texts with a smaller share of printable characters (binary).
        min_letter_share: Drop texts with a smaller share of letters and digits (tables, art).
        max_duplicate_line_share: Drop texts where more than this share of the characters lies in
            lines seen before in the same text.
        min_compressed_share: Drop texts that zlib shrinks below this share (repetition).
        drop_generated: Drop files that say at the top that a program wrote them.
    """

    min_chars: int = 64
    max_line_chars: int = 1000
    min_printable_share: float = 0.98
    min_letter_share: float = 0.4
    max_duplicate_line_share: float = 0.5
    min_compressed_share: float = 0.1
    drop_generated: bool = True


class Filter(Protocol):
    """Decides about one text."""

    @property
    def name(self) -> str: ...

    def keeps(self, text: str) -> bool: ...


@dataclass(frozen=True)
class MinLength:
    """Keeps texts of at least ``min_chars`` characters besides white space at the ends."""

    min_chars: int
    name: str = "min_length"

    def keeps(self, text: str) -> bool:
        return len(text.strip()) >= self.min_chars


@dataclass(frozen=True)
class MaxLineLength:
    """Keeps texts whose longest line has at most ``max_chars`` characters."""

    max_chars: int
    name: str = "max_line_length"

    def keeps(self, text: str) -> bool:
        return max(map(len, text.split("\n"))) <= self.max_chars


@dataclass(frozen=True)
class Printable:
    """Keeps texts with few control characters, replacement characters and unassigned codes."""

    min_share: float
    name: str = "printable"

    def keeps(self, text: str) -> bool:
        # str.isprintable is one C call for a whole line; only odd lines are counted one by one.
        bad = 0
        for line in text.split("\n"):
            if not line.isprintable() or "\ufffd" in line:
                bad += sum(c == "\ufffd" or not (c.isprintable() or c in "\t\f") for c in line)
        return bad <= (1 - self.min_share) * len(text)


@dataclass(frozen=True)
class Letters:
    """Keeps texts with enough letters and digits among the characters that are not space."""

    min_share: float
    name: str = "letters"

    def keeps(self, text: str) -> bool:
        visible = "".join(text.split())
        return len(re.sub(r"[\W_]+", "", visible)) >= self.min_share * len(visible)


@dataclass(frozen=True)
class DuplicateLines:
    """Keeps texts that do not repeat their own lines (lines under ten characters are free)."""

    max_share: float
    name: str = "duplicate_lines"

    def keeps(self, text: str) -> bool:
        lines = [line for line in map(str.strip, text.split("\n")) if len(line) >= 10]
        counts = collections.Counter(lines)
        repeated = sum(len(line) * (count - 1) for line, count in counts.items())
        return repeated <= self.max_share * sum(map(len, lines))


@dataclass(frozen=True)
class Repetition:
    """Keeps texts that do not compress too well: repeated phrases at any length.

    Judges texts of at least a thousand bytes; deflate's window is 32 KB.
    """

    min_share: float
    name: str = "repetition"

    def keeps(self, text: str) -> bool:
        content = text.encode("utf-8")
        return len(content) < 1000 or len(zlib.compress(content, 1)) >= self.min_share * len(
            content
        )


@dataclass(frozen=True)
class NotGenerated:
    """Keeps texts that do not declare in their first lines to be the output of a program."""

    name: str = "generated"

    def keeps(self, text: str) -> bool:
        return _GENERATED.search(text[:1500]) is None


# Said of the file itself, not of what its code generates.
_GENERATED = re.compile(
    r"(^\W*(auto[- ]?|automatically )generated"
    r"|\b(file|module|code) (is |was )?(auto[- ]?|automatically )?generated (by|from|with)"
    r"|generated (by|from|with) \S*(\.py|\.txt|gencodec)\b"
    r"|\bdo not (edit|modify)( this file| by hand|\W*$))",
    re.IGNORECASE | re.MULTILINE,
)


def build_filters(config: CleanConfig) -> list[Filter]:
    """Return the filters a configuration switches on, cheapest first."""
    choices: list[tuple[bool, Filter]] = [
        (config.min_chars > 0, MinLength(config.min_chars)),
        (config.drop_generated, NotGenerated()),
        (config.max_line_chars > 0, MaxLineLength(config.max_line_chars)),
        (config.min_printable_share > 0, Printable(config.min_printable_share)),
        (config.min_letter_share > 0, Letters(config.min_letter_share)),
        (config.max_duplicate_line_share < 1, DuplicateLines(config.max_duplicate_line_share)),
        (config.min_compressed_share > 0, Repetition(config.min_compressed_share)),
    ]
    return [filter_ for enabled, filter_ in choices if enabled]


@dataclass
class DropCount:
    """How many documents a step saw, how many it dropped, and the first few of those."""

    name: str
    kept: int = 0
    dropped: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    def record(self, document: Document, *, kept: bool, reason: str = "") -> bool:
        """Count one decision and return it."""
        if kept:
            self.kept += 1
            return True
        self.dropped += 1
        if len(self.examples) < _NUM_EXAMPLES:
            excerpt = " ".join(document.text[: 4 * _EXCERPT_CHARS].split())[:_EXCERPT_CHARS]
            example = {"id": document.id, "excerpt": excerpt}
            self.examples.append({**example, "reason": reason} if reason else example)
        return False

    def to_record(self) -> dict[str, Any]:
        """Return the plain data of the manifest."""
        seen = self.kept + self.dropped
        return {
            "name": self.name,
            "kept": self.kept,
            "dropped": self.dropped,
            "drop_rate": round(self.dropped / seen, 6) if seen else 0.0,
            "examples": self.examples,
        }


class Cleaner:
    """Applies filters in order; a document is counted by the first filter that drops it."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = list(filters)
        self.counts = [DropCount(filter_.name) for filter_ in self._filters]

    def keeps(self, document: Document) -> bool:
        """Decide about one document and count the decision."""
        return all(
            count.record(document, kept=filter_.keeps(document.text))
            for filter_, count in zip(self._filters, self.counts, strict=True)
        )

    def clean(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield the documents every filter keeps."""
        return (document for document in documents if self.keeps(document))
