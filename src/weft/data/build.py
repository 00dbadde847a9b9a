"""From sources to a corpus: read, clean, deduplicate, split, and write down what happened.

::

    FOLDER/
      train.jsonl     {"id", "text", "meta"} a line
      heldout.jsonl   the same, chosen by the hash of the id
      manifest.json   sources with licences, counts and examples of every step, checksums

Documents pass through one at a time; what stays in memory is a hash and a signature for each.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from weft.core.config import to_mapping
from weft.core.errors import ConfigError, DataError
from weft.core.events import Events
from weft.core.files import read_json, write_json
from weft.data.clean import CleanConfig, Cleaner, DropCount, build_filters
from weft.data.dedup import DedupConfig, MinHasher, find_near_duplicates, text_key
from weft.data.document import Document
from weft.data.jsonl import read_jsonl, to_line
from weft.data.permutation import hash_fraction
from weft.data.sources.catalog import open_source
from weft.data.sources.source import Source
from weft.data.staging import staged

MANIFEST = "manifest.json"
SPLITS = ("train", "heldout")
_FORMAT = {"format": "weft-corpus", "version": 1}

Progress = Callable[[int], None]


@dataclass(frozen=True)
class CorpusConfig:
    """What a corpus is made of.

    Attributes:
        sources: Built-in names (stdlib, stdlib-code, stdlib-docstrings, stdlib-topics) or paths
            of folders, .txt, .jsonl and .parquet files.
        text_key: The field that holds the text in .jsonl and .parquet files.
        license: SPDX identifier recorded for sources given as paths.
        heldout_share: Share of the documents kept for evaluation.
        max_bytes: Stop reading after this many bytes of text; none reads everything.
        clean: Filters.
        dedup: Removal of duplicates.
    """

    sources: tuple[str, ...] = ("stdlib",)
    text_key: str = "text"
    license: str = "unknown"
    heldout_share: float = 0.02
    max_bytes: int | None = None
    clean: CleanConfig = field(default_factory=CleanConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("sources is empty", fix="name at least one, such as stdlib")
        if len(set(self.sources)) < len(self.sources):
            raise ConfigError(
                f"sources names one twice: {', '.join(self.sources)}", fix="name each once"
            )
        if not 0 < self.heldout_share < 1:
            raise ConfigError(
                f"heldout_share is {self.heldout_share}", fix="use a number between 0 and 1"
            )
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ConfigError(f"max_bytes is {self.max_bytes}", fix="use at least 1")


def build_corpus(
    config: CorpusConfig,
    folder: Path,
    *,
    events: Events | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Build a corpus, or return the manifest of one that is complete and up to date.

    Args:
        config: Sources, filters and split.
        folder: Where the corpus is written; nothing else in it is touched.
        events: Receives one ``corpus`` event with the totals.
        progress: Called with the number of documents read so far.

    Raises:
        InputFileError, DataError: a source is missing, broken or empty.
        ConfigError: the folder holds a corpus of another configuration.
    """
    folder = Path(folder)
    sources = [
        open_source(spec, text_key=config.text_key, license=config.license)
        for spec in config.sources
    ]
    stamps = [_hash(source.fingerprint()) for source in sources]
    manifest = _reusable(folder, config, stamps)
    if manifest is None:
        with staged(folder, header=MANIFEST) as staging:
            manifest = _Build(config, staging, progress).run(sources, stamps)
            write_json(staging / MANIFEST, manifest)
    if events is not None:
        events.emit(
            "corpus", **{name: manifest[name] for name in SPLITS}, sha256=manifest["sha256"]
        )
    return manifest


class _Build:
    """One pass over the sources and one over the survivors."""

    def __init__(self, config: CorpusConfig, folder: Path, progress: Progress | None) -> None:
        self._config, self._folder, self._progress = config, folder, progress
        self._cleaner = Cleaner(build_filters(config.clean))
        self._hasher = MinHasher(config.dedup)
        self._exact, self._near = DropCount("exact"), DropCount("near")
        self._seen: set[bytes] = set()
        self._ids: set[str] = set()
        self._signatures: list[np.ndarray] = []

    def run(self, sources: list[Source], stamps: list[str]) -> dict[str, Any]:
        survivors = self._folder / "survivors"
        described = []
        with survivors.open("w", encoding="utf-8") as file:
            for spec, source, stamp in zip(self._config.sources, sources, stamps, strict=True):
                counts = _Counter(self._limit(source.documents(), described))
                for document in self._survivors(counts, spec):
                    file.write(to_line(document.to_record()))
                described.append(
                    {
                        "spec": spec,
                        "name": source.name,
                        "license": source.license,
                        "fingerprint": stamp,
                        **counts.totals(),
                    }
                )
        _require_documents(described)
        splits = self._write_splits(survivors)
        survivors.unlink()
        return self._manifest(described, splits)

    def _limit(
        self, documents: Iterator[Document], before: list[dict[str, Any]]
    ) -> Iterator[Document]:
        num_bytes = sum(source["num_bytes"] for source in before)
        for document in documents:
            num_bytes += document.num_bytes
            if self._config.max_bytes is not None and num_bytes > self._config.max_bytes:
                return
            yield document

    def _survivors(self, documents: Iterable[Document], spec: str) -> Iterator[Document]:
        of_source: set[str] = set()
        for document in self._cleaner.clean(documents):
            if self._config.dedup.exact and not self._is_new(document):
                continue
            if self._config.dedup.near:
                self._signatures.append(self._hasher.signature(document.text))
            if document.id in of_source:
                raise DataError(
                    f"two documents of {spec} have the id {document.id!r}", fix="give unique ids"
                )
            of_source.add(document.id)
            yield self._with_own_id(document, spec)
            if self._progress is not None:
                self._progress(len(self._ids))

    def _with_own_id(self, document: Document, spec: str) -> Document:
        """Two folders may hold a README.md each: the later one takes its source's name too."""
        if document.id in self._ids:
            document = dataclasses.replace(document, id=f"{spec}:{document.id}")
        self._ids.add(document.id)
        return document

    def _is_new(self, document: Document) -> bool:
        key = text_key(document.text)
        kept = self._exact.record(document, kept=key not in self._seen)
        self._seen.add(key)
        return kept

    def _write_splits(self, survivors: Path) -> dict[str, Any]:
        kept = list(self._kept_ids(survivors))
        heldout = choose_heldout(kept, self._config.heldout_share)
        kept_ids = set(kept)
        writers = {name: _SplitWriter(self._folder / f"{name}.jsonl") for name in SPLITS}
        for document in _read_documents(survivors):
            if document.id in kept_ids:
                writers["heldout" if document.id in heldout else "train"].add(document)
        return {name: writer.close() for name, writer in writers.items()}

    def _kept_ids(self, survivors: Path) -> Iterator[str]:
        duplicates: dict[int, int] = {}
        if self._config.dedup.near and self._signatures:
            duplicates = find_near_duplicates(np.stack(self._signatures), self._config.dedup)
        names: list[str] = []
        for number, document in enumerate(_read_documents(survivors)):
            names.append(document.id)
            if number in duplicates:
                reason = f"resembles {names[duplicates[number]]}"
                self._near.record(document, kept=False, reason=reason)
            else:
                self._near.record(document, kept=True)
                yield document.id

    def _manifest(self, sources: list[dict[str, Any]], splits: dict[str, Any]) -> dict[str, Any]:
        checksum = _hash("".join(splits[name]["sha256"] for name in SPLITS))
        return {
            **_FORMAT,
            "config": to_mapping(self._config),
            "python": platform.python_version(),
            "sources": sources,
            "filters": [count.to_record() for count in self._cleaner.counts],
            "dedup": {count.name: count.to_record() for count in (self._exact, self._near)},
            **splits,
            "sha256": checksum,
        }


class _Counter:
    """Counts documents and bytes on their way through."""

    def __init__(self, documents: Iterator[Document]) -> None:
        self._documents, self._num_documents, self._num_bytes = documents, 0, 0

    def __iter__(self) -> Iterator[Document]:
        for document in self._documents:
            self._num_documents += 1
            self._num_bytes += document.num_bytes
            yield document

    def totals(self) -> dict[str, int]:
        return {"num_documents": self._num_documents, "num_bytes": self._num_bytes}


class _SplitWriter:
    """Writes one split and hashes it on the way."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._num_documents = self._num_bytes = 0

    def add(self, document: Document) -> None:
        line = to_line(document.to_record()).encode()
        self._file.write(line)
        self._digest.update(line)
        self._num_documents += 1
        self._num_bytes += document.num_bytes

    def close(self) -> dict[str, Any]:
        size = self._file.tell()
        self._file.close()
        return {
            "num_documents": self._num_documents,
            "num_bytes": self._num_bytes,
            "size_bytes": size,
            "sha256": self._digest.hexdigest(),
        }


def choose_heldout(ids: list[str], share: float) -> set[str]:
    """Return the ids to hold out: those whose hash lies below ``share``.

    A document's side never changes when others come or go. When the hash picks none (or all) of a
    small corpus, the one with the lowest (highest) hash decides, so that both sides have text.

    Raises:
        DataError: fewer than two documents.
    """
    if len(ids) < 2:
        raise DataError(
            f"{len(ids)} documents are left after cleaning and deduplication; "
            "training and evaluation need one each",
            fix="add sources or loosen the filters; manifest counts show what drops most",
        )
    ranked = sorted(ids, key=hash_fraction)
    count = sum(hash_fraction(name) < share for name in ids)
    return set(ranked[: min(max(count, 1), len(ids) - 1)])


def _require_documents(sources: list[dict[str, Any]]) -> None:
    for source in sources:
        if source["num_documents"] == 0:
            raise DataError(
                f"source {source['spec']!r} has no documents",
                fix="check the path; folders are searched for text files by suffix, "
                "and max_bytes must leave room for every source",
            )


def _reusable(folder: Path, config: CorpusConfig, stamps: list[str]) -> dict[str, Any] | None:
    """Return the manifest of a complete corpus of the same configuration and sources."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest = read_json(path)
    if not isinstance(manifest, dict) or any(manifest.get(k) != v for k, v in _FORMAT.items()):
        raise DataError(f"{path} is not the manifest of a corpus", fix="use another folder")
    if manifest["config"] != json.loads(json.dumps(to_mapping(config))):
        raise ConfigError(
            f"{folder} holds a corpus of another configuration",
            fix="use another folder, or delete this one to build it anew",
        )
    same_sources = [source["fingerprint"] for source in manifest["sources"]] == stamps
    complete = all(
        (folder / f"{name}.jsonl").is_file()
        and (folder / f"{name}.jsonl").stat().st_size == manifest[name]["size_bytes"]
        for name in SPLITS
    )
    return manifest if same_sources and complete else None


def _read_documents(path: Path) -> Iterator[Document]:
    for where, record in read_jsonl(path):
        yield Document.from_record(record, where=where)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
