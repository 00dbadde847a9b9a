"""What every source offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from weft.data.document import Document


class Source(Protocol):
    """A named set of documents.

    Attributes:
        name: What the manifest calls it.
        license: SPDX identifier of the texts, or ``"unknown"``.
    """

    @property
    def name(self) -> str: ...

    @property
    def license(self) -> str: ...

    def fingerprint(self) -> str:
        """Return a cheap text that changes when the content does (sizes, times, versions)."""
        ...

    def documents(self) -> Iterator[Document]:
        """Yield the documents, always in the same order."""
        ...
