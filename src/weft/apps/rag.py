"""Retrieval with citations: one SQLite file, ranked by BM25.

The index is one file that can be copied and queried anywhere Python runs. Ranking is FTS5's
``bm25`` (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework"); words are stemmed
(Porter) and split at punctuation and underscores, so that ``read_file`` is found by "read file".
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from weft.apps.chunks import split_lines
from weft.apps.client import ChatClient
from weft.core.errors import ConfigError, DataError, ResourceError, UnsupportedError
from weft.core.files import disk_errors, require_file

FORMAT = "weft-rag-1"
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY,
    document TEXT NOT NULL,
    first_line INTEGER NOT NULL,
    last_line INTEGER NOT NULL,
    text TEXT NOT NULL
);
CREATE VIRTUAL TABLE chunk_fts USING fts5 (
    text, content='chunk', content_rowid='id', tokenize='porter unicode61 remove_diacritics 2'
);
"""
_SEARCH = """
SELECT chunk.document, chunk.first_line, chunk.last_line, chunk.text, -bm25(chunk_fts) AS score
FROM chunk_fts JOIN chunk ON chunk.id = chunk_fts.rowid
WHERE chunk_fts MATCH ? ORDER BY score DESC, chunk.id LIMIT ?
"""
_WORD = re.compile(r"[^\W_]+")
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s+")


@dataclass(frozen=True)
class Passage:
    """A found passage; a higher score is a better match."""

    document: str
    first_line: int
    last_line: int
    text: str
    score: float

    @property
    def citation(self) -> str:
        """Where it is, as ``document:line``."""
        return f"{self.document}:{self.first_line}"


@dataclass(frozen=True)
class Answer:
    """An answer and the passages it rests on, best first."""

    text: str
    passages: tuple[Passage, ...]

    @property
    def citations(self) -> tuple[str, ...]:
        return tuple(passage.citation for passage in self.passages)


class Index:
    """A searchable index; use it as a context manager or ``close`` it.

    ::

        with Index.build([("notes.md", text)], Path("index.sqlite")) as index:
            print(index.search("how are blocks freed", k=3)[0].citation)

    Raises:
        InputFileError: there is no such file.
        DataError: it is not an index, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = require_file(path, fix="build it first with Index.build")
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        self._connection = sqlite3.connect(uri, uri=True)
        try:
            with self._readable():
                found = dict(self._connection.execute("SELECT key, value FROM meta"))
            if found.get("format") != FORMAT:
                raise DataError(
                    f"{self.path} has the format {found.get('format')!r}, not {FORMAT!r}",
                    fix="build the index again",
                )
        except BaseException:
            self.close()
            raise

    @classmethod
    def build(cls, documents: Iterable[tuple[str, str]], path: Path) -> Index:
        """Index (id, text) pairs; the file appears, or replaces an older one, only when complete.

        Raises:
            DataError: there is no text.
            ResourceError: the disk is full or not writable.
        """
        path = Path(path)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            with _writing(path), contextlib.closing(sqlite3.connect(name)) as connection:
                _fill(connection, documents)
            with disk_errors(path):
                os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return cls(path)

    def __len__(self) -> int:
        with self._readable():
            return self._connection.execute("SELECT count(*) FROM chunk").fetchone()[0]

    def search(self, query: str, k: int = 5) -> list[Passage]:
        """Return up to ``k`` passages that share words with the query, best first.

        Raises:
            ConfigError: ``k`` is not positive.
        """
        if k < 1:
            raise ConfigError(f"k is {k}", fix="ask for at least one passage")
        # Words become quoted strings, so that nothing in a question is query syntax.
        words = dict.fromkeys(_WORD.findall(query.lower()))
        if not words:
            return []
        match = " OR ".join(f'"{word}"' for word in words)
        with self._readable():
            return [Passage(*row) for row in self._connection.execute(_SEARCH, (match, k))]

    def answer(self, question: str, client: ChatClient | None = None, *, k: int = 4) -> Answer:
        """Answer from the index: with a client in its words, without one by quotation."""
        passages = tuple(self.search(question, k))
        if not passages:
            return Answer("Nothing in the index matches the question.", ())
        if client is None:
            return Answer(_quote(question, passages), passages)
        return Answer(client.chat(_prompt(question, passages)), passages)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{self.path} is not a readable index: {error}", fix="build the index again"
            ) from error


def _fill(connection: sqlite3.Connection, documents: Iterable[tuple[str, str]]) -> None:
    connection.executescript(_SCHEMA)
    num_documents = 0
    for document, text in documents:
        rows = [(document, c.first_line, c.last_line, c.text) for c in split_lines(text)]
        num_documents += bool(rows)
        connection.executemany(
            "INSERT INTO chunk (document, first_line, last_line, text) VALUES (?, ?, ?, ?)", rows
        )
    if not num_documents:
        raise DataError("there is no text to index", fix="check which documents are given")
    connection.execute("INSERT INTO chunk_fts (chunk_fts) VALUES ('rebuild')")
    meta = {"format": FORMAT, "num_documents": str(num_documents)}
    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    connection.commit()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "fts5" in str(error):
            raise UnsupportedError(
                "this Python's SQLite has no full-text search (FTS5)",
                fix="use a Python built with a current SQLite",
            ) from error
        raise ResourceError(
            f"cannot write {path}: {error}", fix="free some space or choose another folder"
        ) from error


def _prompt(question: str, passages: Sequence[Passage]) -> list[dict[str, str]]:
    sources = "\n\n".join(
        f"[{number}] {passage.citation}\n{passage.text}"
        for number, passage in enumerate(passages, 1)
    )
    system = (
        "Answer the question from the numbered sources only and cite them like [1]. "
        "If they do not answer it, say so."
    )
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": f"{sources}\n\nQuestion: {question}"},
    ]


def _quote(question: str, passages: Sequence[Passage], num_sentences: int = 3) -> str:
    """Return the sentences that share the rarest words with the question, with their lines.

    A sentence scores the sum of its matched words' inverse document frequency, damped by its
    length; a word's frequency is counted over the sentences at hand.
    """
    sentences = [item for passage in passages for item in _sentences(passage)]
    words = [_stems(text) for _, text in sentences]
    wanted = _stems(question)
    weight = {
        word: math.log(1 + len(words) / (1 + sum(word in other for other in words)))
        for word in wanted
    }
    scores = [
        sum(weight[word] for word in wanted & found) / math.sqrt(4 + len(found)) for found in words
    ]
    ranked = sorted(range(len(sentences)), key=lambda index: (-scores[index], index))
    best = [index for index in ranked[:num_sentences] if scores[index] > 0] or ranked[:1]
    return "\n".join(f"{sentences[index][1]} [{sentences[index][0]}]" for index in best)


def _sentences(passage: Passage) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(passage.text.split("\n"), passage.first_line):
        for sentence in _SENTENCE_END.split(line.strip()):
            if sentence:
                yield f"{passage.document}:{number}", sentence


def _stems(text: str) -> frozenset[str]:
    """Return the words of a text without a plural s; enough to compare a handful of sentences."""
    words = _WORD.findall(text.lower())
    return frozenset(word.removesuffix("s") if len(word) > 3 else word for word in words)
