"""The unit of every pipeline step: one text with a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weft.core.errors import DataError


@dataclass(frozen=True)
class Document:
    """A text, an id that stays the same from run to run, and what is known about it.

    Attributes:
        text: The content.
        id: Unique within a corpus; decides the train/held-out split, so it must not depend on
            the order of reading.
        meta: Plain data: source, licence and whatever the source adds.
    """

    text: str
    id: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the text."""
        return len(self.text.encode("utf-8"))

    def to_record(self) -> dict[str, Any]:
        """Return the plain data of one JSONL line."""
        return {"id": self.id, "text": self.text, "meta": dict(self.meta)}

    @classmethod
    def from_record(cls, record: Any, *, where: str) -> Document:
        """Build a document from one JSONL line.

        Raises:
            DataError: the line has no text or no id; the message names ``where``.
        """
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise DataError(f"{where} has no text", fix="build the corpus again")
        if not isinstance(record.get("id"), str):
            raise DataError(f"{where} has no id", fix="build the corpus again")
        return cls(record["text"], record["id"], record.get("meta") or {})


def clean_text(text: str) -> str:
    """Return ``text`` with Unix line ends and without lone surrogates, which UTF-8 cannot hold."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.encode("utf-8", "replace").decode("utf-8")
