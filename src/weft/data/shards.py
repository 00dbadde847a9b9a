"""Token shards: memory-mapped token ids of a corpus with everything needed to trust them.

::

    FOLDER/
      index.json        magic, version, dtype, counts, tokenizer, size and sha256 of each file
      tokens-00000.bin  token ids, uint16 or uint32 little endian; a document is in one file
      offsets.bin       int64 [num_documents + 1]: where each document begins in the stream
      bytes.bin         int64 [num_documents]: UTF-8 bytes of each document's text

``index.json`` is written last. Opening checks the sizes of all files; ``verify`` reads them and
checks the sums (about a second per GB).
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weft.core.errors import DataError
from weft.core.files import read_json, write_json
from weft.data.staging import staged

_MAGIC = "weft-token-shards"
_VERSION = 1
_INDEX = "index.json"
_REBUILD = "delete the folder and tokenize the corpus again, or restore the file from a copy"


class TokenDocument(NamedTuple):
    """Token ids of one document and the UTF-8 bytes of the text they stand for."""

    tokens: Sequence[int] | np.ndarray
    num_bytes: int


class TokenShards:
    """Tokens of a corpus, read through memory maps.

    Raises:
        DataError: the folder has no complete shards, or a file was cut, grown or swapped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.index = _read_index(self.folder)
        for name, entry in self.index["files"].items():
            _check_size(self.folder / name, entry["size_bytes"])
        dtype = np.dtype(self.index["dtype"]).newbyteorder("<")
        self._parts = [
            np.memmap(self.folder / name, dtype=dtype, mode="r") for name in self.index["parts"]
        ]
        self._part_starts = [0, *np.cumsum([len(part) for part in self._parts]).tolist()]
        self.offsets: np.ndarray = np.memmap(self.folder / "offsets.bin", dtype="<i8", mode="r")
        self.document_bytes: np.ndarray = np.memmap(
            self.folder / "bytes.bin", dtype="<i8", mode="r"
        )
        self._check_counts()

    @property
    def num_tokens(self) -> int:
        return int(self.index["num_tokens"])

    @property
    def num_documents(self) -> int:
        return int(self.index["num_documents"])

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of all texts: the divisor of bits per byte."""
        return int(self.index["num_bytes"])

    @property
    def vocab_size(self) -> int:
        return int(self.index["vocab_size"])

    @property
    def tokenizer_fingerprint(self) -> str:
        return str(self.index["tokenizer_fingerprint"])

    @property
    def meta(self) -> dict[str, Any]:
        return dict(self.index["meta"])

    def document(self, index: int) -> np.ndarray:
        """Return a view of the tokens of one document."""
        if not 0 <= index < self.num_documents:
            raise IndexError(f"document {index} of {self.num_documents} in {self.folder}")
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        part = bisect.bisect_right(self._part_starts, start) - 1
        first = self._part_starts[part]
        return self._parts[part][start - first : stop - first]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return tokens ``start`` to ``stop`` of the stream of all documents as int64."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start} to {stop} of {self.num_tokens} in {self.folder}")
        pieces = []
        part = bisect.bisect_right(self._part_starts, start) - 1
        while start < stop:
            first, last = self._part_starts[part], min(stop, self._part_starts[part + 1])
            pieces.append(self._parts[part][start - first : last - first])
            start, part = last, part + 1
        return np.concatenate([np.empty(0, np.int64), *pieces], dtype=np.int64)

    def verify(self) -> None:
        """Read every file and compare its checksum.

        Raises:
            DataError: a file was changed since it was written.
        """
        for name, entry in self.index["files"].items():
            found = _file_sha256(self.folder / name)
            if found != entry["sha256"]:
                raise DataError(
                    f"{self.folder / name} is corrupted: its sha256 begins {found[:12]}, "
                    f"expected {entry['sha256'][:12]}",
                    fix=_REBUILD,
                )

    def check_tokenizer(self, fingerprint: str) -> None:
        """Refuse to pair these tokens with another tokenizer.

        Raises:
            DataError: the shards were made with another tokenizer.
        """
        if fingerprint != self.tokenizer_fingerprint:
            raise DataError(
                f"{self.folder} holds tokens of tokenizer {self.tokenizer_fingerprint[:12]}, "
                f"but the tokenizer in use is {fingerprint[:12]}",
                fix="use the tokenizer the shards were made with, or tokenize the corpus again "
                "into another folder",
            )

    def _check_counts(self) -> None:
        counts = (len(self.offsets) - 1, len(self.document_bytes), self._part_starts[-1])
        stated = (self.num_documents, self.num_documents, self.num_tokens)
        if counts != stated or int(self.offsets[-1]) != self.num_tokens:
            raise DataError(
                f"{self.folder / _INDEX} states (documents, byte counts, tokens) {stated}, "
                f"but the files hold {counts}",
                fix=_REBUILD,
            )


def write_shards(
    folder: Path,
    documents: Iterable[TokenDocument],
    *,
    vocab_size: int,
    tokenizer_fingerprint: str,
    meta: Mapping[str, Any] | None = None,
    max_tokens_per_file: int = 2**28,
) -> TokenShards:
    """Write documents as shards; the folder is usable only once everything is on the disk.

    Raises:
        DataError: there are no documents, one is empty or has an id outside the vocabulary.
        ResourceError: the disk is full or not writable.
    """
    folder = Path(folder)
    dtype = np.dtype("<u2" if vocab_size <= 2**16 else "<u4")
    with staged(folder, header=_INDEX) as staging:
        with _Writer(staging, dtype, vocab_size, max_tokens_per_file) as writer:
            for document in documents:
                writer.add(document)
        index = writer.describe()
        index["vocab_size"] = vocab_size
        index["tokenizer_fingerprint"] = tokenizer_fingerprint
        index["meta"] = dict(meta or {})
        index["index_sha256"] = _index_sha256(index)
        write_json(staging / _INDEX, index)
    return TokenShards(folder)


class _Writer:
    """Appends documents to part files and keeps their offsets and byte counts."""

    def __init__(self, folder: Path, dtype: np.dtype, vocab_size: int, max_tokens: int) -> None:
        self.folder, self.dtype, self.vocab_size = folder, dtype, vocab_size
        self.max_tokens = max_tokens
        self.offsets, self.num_bytes = [0], []
        self.parts: list[str] = []
        self.room = 0
        self._files = contextlib.ExitStack()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def add(self, document: TokenDocument) -> None:
        tokens = np.asarray(document.tokens, dtype=np.int64)
        self._check(tokens)
        if len(tokens) > self.room:
            self._open_part()
            self.room = max(self.max_tokens, len(tokens))
        self._file.write(tokens.astype(self.dtype).tobytes())
        self.room -= len(tokens)
        self.offsets.append(self.offsets[-1] + len(tokens))
        self.num_bytes.append(document.num_bytes)

    def _open_part(self) -> None:
        self._files.close()
        self.parts.append(f"tokens-{len(self.parts):05d}.bin")
        self._file = self._files.enter_context((self.folder / self.parts[-1]).open("wb"))

    def describe(self) -> dict[str, Any]:
        if not self.parts:
            raise DataError("there are no documents to write", fix="check the corpus")
        (self.folder / "offsets.bin").write_bytes(np.array(self.offsets, "<i8").tobytes())
        (self.folder / "bytes.bin").write_bytes(np.array(self.num_bytes, "<i8").tobytes())
        names = [*self.parts, "offsets.bin", "bytes.bin"]
        return {
            "magic": _MAGIC,
            "version": _VERSION,
            "dtype": self.dtype.name,
            "num_documents": len(self.num_bytes),
            "num_tokens": self.offsets[-1],
            "num_bytes": sum(self.num_bytes),
            "parts": self.parts,
            "files": {name: _describe(self.folder / name) for name in names},
        }

    def _check(self, tokens: np.ndarray) -> None:
        number = len(self.num_bytes)
        if tokens.size == 0:
            raise DataError(f"document {number} has no tokens", fix="drop empty documents")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.vocab_size:
            raise DataError(
                f"document {number} has token ids from {low} to {high}, "
                f"outside the vocabulary of {self.vocab_size}",
                fix="give the vocab_size of the tokenizer that made the tokens",
            )


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / _INDEX
    if not path.is_file():
        raise DataError(
            f"{str(folder)!r} holds no complete token shards: {_INDEX} is missing",
            fix="tokenize a corpus into this folder first, or check the path",
        )
    index = read_json(path)
    if not isinstance(index, dict) or index.get("magic") != _MAGIC:
        raise DataError(f"{path} does not describe token shards", fix="check the path")
    if index.get("version") != _VERSION:
        raise DataError(
            f"{path} has format version {index.get('version')}; this weft reads {_VERSION}",
            fix="tokenize the corpus again with this version",
        )
    if index.get("index_sha256") != _index_sha256(index):
        raise DataError(f"{path} is corrupted: its checksum does not match", fix=_REBUILD)
    return index


def _index_sha256(index: Mapping[str, Any]) -> str:
    content = {key: value for key, value in index.items() if key != "index_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_size(path: Path, expected: int) -> None:
    found = path.stat().st_size if path.is_file() else None
    if found is None:
        raise DataError(f"{path} is missing", fix=_REBUILD)
    if found != expected:
        raise DataError(f"{path} has {found} bytes, expected {expected}", fix=_REBUILD)


def _describe(path: Path) -> dict[str, Any]:
    return {"size_bytes": path.stat().st_size, "sha256": _file_sha256(path)}


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
