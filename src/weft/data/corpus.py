"""Reading a built corpus and turning it into token shards."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from weft.core.errors import DataError
from weft.core.files import read_json
from weft.data.build import MANIFEST, SPLITS
from weft.data.document import Document
from weft.data.jsonl import read_jsonl
from weft.data.shards import TokenDocument, TokenShards, write_shards

_BATCH_SIZE = 64
_REBUILD = "build the corpus again with `weft data build`"


class BatchEncoder(Protocol):
    """The part of ``weft.text.tokenizer.Tokenizer`` that tokenizing a corpus needs."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def bos_id(self) -> int | None: ...

    @property
    def eos_ids(self) -> tuple[int, ...]: ...

    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...


class Corpus:
    """A folder written by ``build_corpus``.

    Raises:
        DataError: the folder holds no complete corpus, or a file was cut or swapped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        path = self.folder / MANIFEST
        if not path.is_file():
            raise DataError(
                f"{str(folder)!r} holds no complete corpus: {MANIFEST} is missing", fix=_REBUILD
            )
        self.manifest: dict[str, Any] = read_json(path)
        if not isinstance(self.manifest, dict) or self.manifest.get("format") != "weft-corpus":
            raise DataError(f"{path} is not the manifest of a corpus", fix="check the path")
        for name in SPLITS:
            self._check_size(self._path(name), self.manifest[name]["size_bytes"])

    @property
    def sha256(self) -> str:
        """The checksum of the whole corpus; print it beside every bits-per-byte."""
        return str(self.manifest["sha256"])

    def documents(self, split: str) -> Iterator[Document]:
        """Yield the documents of ``"train"`` or ``"heldout"``."""
        for where, record in read_jsonl(self._path(split)):
            yield Document.from_record(record, where=where)

    def train_texts(self) -> Iterator[str]:
        """Yield the texts to train a tokenizer on."""
        return (document.text for document in self.documents("train"))

    def train_documents(self) -> Iterator[Document]:
        """Yield the documents to train on."""
        return self.documents("train")

    def heldout_documents(self) -> Iterator[Document]:
        """Yield the documents to evaluate on."""
        return self.documents("heldout")

    def verify(self) -> None:
        """Read both files and compare their checksums.

        Raises:
            DataError: a file was changed since it was written.
        """
        for name in SPLITS:
            with self._path(name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            expected = self.manifest[name]["sha256"]
            if found != expected:
                raise DataError(
                    f"{self._path(name)} was changed: its sha256 begins {found[:12]}, "
                    f"expected {expected[:12]}",
                    fix=_REBUILD,
                )

    def _path(self, split: str) -> Path:
        return self.folder / f"{split}.jsonl"

    @staticmethod
    def _check_size(path: Path, expected: int) -> None:
        if not path.is_file():
            raise DataError(f"{path} is missing", fix=_REBUILD)
        if path.stat().st_size != expected:
            raise DataError(
                f"{path} has {path.stat().st_size} bytes, expected {expected}", fix=_REBUILD
            )


def tokenize_corpus(
    corpus: Corpus,
    tokenizer: BatchEncoder,
    folder: Path,
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, TokenShards]:
    """Tokenize both splits into ``folder/train`` and ``folder/heldout``.

    A document becomes ``begin + tokens + end``: the end token teaches a model to stop; the begin
    token (when the tokenizer has one) gives the first token of the text something to be predicted
    from, so that bits per byte count every byte. Complete shards of the same corpus and tokenizer
    are reused.

    Args:
        corpus: What to tokenize.
        tokenizer: Anything with ``encode_batch``, such as ``weft.text.tokenizer.Tokenizer``.
        folder: Where the shards are written.
        progress: Called with the UTF-8 bytes tokenized so far.

    Raises:
        DataError: the folder holds shards made with another tokenizer.
    """
    shards, num_bytes = {}, 0
    for name in SPLITS:
        target, source = Path(folder) / name, f"{corpus.sha256}/{name}"
        existing = _existing(target, tokenizer)
        if existing is None or existing.meta.get("corpus") != source:
            existing = write_shards(
                target,
                _encode(corpus.documents(name), tokenizer, progress, num_bytes),
                vocab_size=tokenizer.vocab_size,
                tokenizer_fingerprint=tokenizer.fingerprint,
                meta={"corpus": source},
            )
        num_bytes += existing.num_bytes
        shards[name] = existing
    return shards


def _existing(folder: Path, tokenizer: BatchEncoder) -> TokenShards | None:
    if not (folder / "index.json").is_file():
        return None
    shards = TokenShards(folder)
    shards.check_tokenizer(tokenizer.fingerprint)
    return shards


def _encode(
    documents: Iterator[Document],
    tokenizer: BatchEncoder,
    progress: Callable[[int], None] | None,
    num_bytes: int,
) -> Iterator[TokenDocument]:
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    end = list(tokenizer.eos_ids[:1])
    while batch := list(itertools.islice(documents, _BATCH_SIZE)):
        encoded = tokenizer.encode_batch([document.text for document in batch])
        for document, tokens in zip(batch, encoded, strict=True):
            num_bytes += document.num_bytes
            yield TokenDocument([*begin, *tokens, *end], document.num_bytes)
        if progress is not None:
            progress(num_bytes)
