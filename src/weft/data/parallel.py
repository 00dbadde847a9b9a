"""Sentence pairs: reading them, and batches of similar length.

S source tokens, T target tokens of a batch.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from weft.core.errors import DataError, InputFileError
from weft.data.batch import IGNORE, Batch
from weft.data.permutation import derive_seed

TokenPair = tuple[Sequence[int], Sequence[int]]
"""Tokens of a source and of its target, without begin and end tokens."""


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Sources and targets laid end to end; target i belongs to source i.

    Attributes:
        source_S: Source tokens, int64, each text with its end token.
        source_lengths: Tokens of each source; they add up to S.
        tokens_T: What the decoder is fed, int64: the start token, then the target.
        labels_T: What it is to say at each position: the target, then the end token.
        target_lengths: Tokens of each target; they add up to T.
    """

    source_S: np.ndarray
    source_lengths: tuple[int, ...]
    tokens_T: np.ndarray
    labels_T: np.ndarray
    target_lengths: tuple[int, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of all texts, sources first."""
        return self.source_lengths + self.target_lengths


class LoadedBatch(Protocol):
    """What a collate function returns."""

    @property
    def lengths(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class EncoderDecoderCollate:
    """Makes batches for an encoder-decoder (teacher forcing).

    Attributes:
        start_id: What every target begins with.
        end_id: What every source and target ends with.
    """

    start_id: int
    end_id: int

    def __call__(self, pairs: Sequence[TokenPair]) -> PairBatch:
        """Lay pairs end to end."""
        fed = [[self.start_id, *target] for _, target in pairs]
        return PairBatch(
            _flat([self.source(source) for source, _ in pairs]),
            tuple(len(source) + 1 for source, _ in pairs),
            _flat(fed),
            _flat([[*target, self.end_id] for _, target in pairs]),
            tuple(len(target) for target in fed),
        )

    def source(self, tokens: Sequence[int]) -> list[int]:
        """Return what the encoder reads of a source."""
        return [*tokens, self.end_id]


@dataclass(frozen=True)
class DecoderOnlyCollate:
    """Makes batches for a decoder: source, separator, target, end; only the target is learnt.

    Attributes:
        separator_id: Between source and target.
        end_id: After the target.
    """

    separator_id: int
    end_id: int

    def __call__(self, pairs: Sequence[TokenPair]) -> Batch:
        """Lay pairs end to end, each one document."""
        tokens = [[*self.prompt(source), *target] for source, target in pairs]
        labels = [[IGNORE] * len(source) + [*target, self.end_id] for source, target in pairs]
        return Batch(_flat(tokens), _flat(labels), tuple(map(len, tokens)))

    def prompt(self, tokens: Sequence[int]) -> list[int]:
        """Return what comes before the target of a source."""
        return [*tokens, self.separator_id]


class PairLoader:
    """Draws batches of pairs of similar length as a pure function of (seed, index).

    Every epoch has the same number of batches of about equally many tokens, and every pair comes
    once: pairs are sorted by length with a little noise, cut at equal sums of tokens, and the
    pieces come in random order. Similar lengths waste little where texts are padded.

    Args:
        pairs: Tokens of every pair.
        collate: Makes a batch of some of them.
        tokens_per_batch: Source and target tokens of a batch, on average at most.
        seed: Decides the order of every epoch.

    Raises:
        DataError: there are no pairs.
    """

    # Standard deviation, in tokens, of what is added to a length before sorting.
    LENGTH_NOISE = 1.0

    def __init__(
        self,
        pairs: Sequence[TokenPair],
        collate: Callable[[Sequence[TokenPair]], LoadedBatch],
        *,
        tokens_per_batch: int,
        seed: int,
    ) -> None:
        if not pairs:
            raise DataError("there are no sentence pairs", fix="check the files of both languages")
        self._pairs, self._collate, self._seed = pairs, collate, seed
        # Start, separator and end tokens: one more on each side.
        lengths = [(len(source) + 1, len(target) + 1) for source, target in pairs]
        self._lengths = np.array(lengths, dtype=np.float64)
        self.num_tokens = int(self._lengths.sum())
        self.batches_per_epoch = max(1, -(-self.num_tokens // tokens_per_batch))
        self._epochs: dict[int, list[np.ndarray]] = {}

    def batch(self, index: int) -> LoadedBatch:
        """Return batch ``index`` (from 0, without end); epochs are shuffled anew."""
        epoch, number = divmod(index, self.batches_per_epoch)
        if epoch not in self._epochs:
            self._epochs = {epoch: self._cut(epoch)}  # only the last one is asked for again
        return self._collate([self._pairs[row] for row in self._epochs[epoch][number]])

    def _cut(self, epoch: int) -> list[np.ndarray]:
        generator = np.random.default_rng(derive_seed(self._seed, "pairs", epoch))
        noisy = self._lengths + generator.normal(0.0, self.LENGTH_NOISE, self._lengths.shape)
        order = np.lexsort((noisy[:, 0], noisy[:, 1].round()))
        sizes = self._lengths.sum(1)[order]
        middles = sizes.cumsum() - sizes / 2
        numbers = (middles * self.batches_per_epoch / self.num_tokens).astype(np.int64)
        edges = np.searchsorted(numbers, np.arange(1, self.batches_per_epoch))
        pieces = np.split(order, edges)
        return [pieces[i] for i in generator.permutation(len(pieces))]


def read_pairs(source: Path, target: Path) -> list[tuple[str, str]]:
    """Read two text files (plain or ``.gz``), line i of one the translation of line i of the other.

    Pairs with an empty side are left out.

    Raises:
        InputFileError: a file is missing or is not UTF-8 text.
        DataError: the files have different numbers of lines, or no pair.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise DataError(
            f"{source} has {len(sources)} lines and {target} has {len(targets)}",
            fix="give two files whose lines belong together",
        )
    pairs = [(a, b) for a, b in zip(sources, targets, strict=True) if a and b]
    if not pairs:
        raise DataError(f"{source} and {target} hold no sentence pair")
    return pairs


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file (plain or ``.gz``), without white space at their ends.

    Raises:
        InputFileError: the file is missing or is not UTF-8 text.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputFileError(
            f"{path} cannot be read: {error}", fix="give a UTF-8 text file, plain or .gz"
        ) from error
    lines = text.removesuffix("\n").split("\n") if text else []
    return [line.strip() for line in lines]


def _flat(texts: Sequence[Sequence[int]]) -> np.ndarray:
    return np.array([token for text in texts for token in text], dtype=np.int64)
