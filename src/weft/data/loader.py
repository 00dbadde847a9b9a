"""Batches of a pre-training corpus as a pure function of (seed, index).

Sequence g of a run is sequence ``permutation(epoch)(g mod n)`` of epoch ``g // n``, so that a
loader has no state: a resumed, resharded or restarted run asks for the next index. In *concat*
packing each epoch cuts the stream at other places: the stream is a ring that starts at an offset
drawn from (seed, epoch); fewer than ``sequence_length`` tokens are left out of an epoch.

Labels are read one token beyond each piece, so a document that continues in another sequence
still has a target at its cut; only the true last token of a document has none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal, Protocol

import numpy as np

from weft.core.errors import ConfigError, DataError
from weft.data.batch import IGNORE, Batch, concatenate
from weft.data.mix import Mixture
from weft.data.pack import best_fit, cut_documents, group_by_bin, split_at_documents
from weft.data.permutation import derive_seed, shuffled
from weft.data.shards import TokenShards

Packing = Literal["concat", "best_fit"]


class Loader:
    """Draws batches from token shards or a mixture of them.

    Args:
        source: One corpus, or several with weights.
        sequence_length: Longest piece of a document, in tokens.
        tokens_per_batch: A multiple of ``sequence_length``; exact for concat, a limit for best fit.
        seed: Decides the order of every epoch.
        packing: ``"concat"`` or ``"best_fit"`` (see ``weft.data.pack``).

    Raises:
        ConfigError: sizes that do not fit together.
        DataError: a corpus with fewer tokens than one sequence.
    """

    def __init__(
        self,
        source: TokenShards | Mixture,
        *,
        sequence_length: int,
        tokens_per_batch: int,
        seed: int,
        packing: Packing = "concat",
    ) -> None:
        self.sequences_per_batch = count_sequences(sequence_length, tokens_per_batch)
        self._mixture = source if isinstance(source, Mixture) else Mixture([source], [1.0])
        self._seed = seed
        self._streams = [
            _open_stream(shards, sequence_length, derive_seed(seed, "source", number), packing)
            for number, shards in enumerate(self._mixture.sources)
        ]

    @property
    def num_sequences(self) -> int:
        """Sequences of one epoch over all sources."""
        return sum(stream.num_sequences for stream in self._streams)

    @property
    def batches_per_epoch(self) -> int:
        """Batches after which as many sequences were drawn as the sources have."""
        return -(-self.num_sequences // self.sequences_per_batch)

    def batch(self, index: int) -> Batch:
        """Return batch ``index`` (from 0, without end)."""
        first = index * self.sequences_per_batch
        pieces = []
        for number in range(first, first + self.sequences_per_batch):
            source, nth = self._mixture.choose(number, self._seed)
            stream = self._streams[source]
            pieces += [read_span(stream.shards, *span) for span in stream.spans(nth)]
        return concatenate(pieces)


class _Stream(Protocol):
    """One corpus as an endless, shuffled list of sequences."""

    shards: TokenShards
    num_sequences: int

    def spans(self, number: int) -> list[tuple[int, int]]: ...


class _ConcatStream:
    """Sequences of exactly ``length`` tokens from a ring of all documents."""

    def __init__(self, shards: TokenShards, length: int, seed: int) -> None:
        self.shards, self._length, self._seed = shards, length, seed
        self.num_sequences = shards.num_tokens // length
        if not self.num_sequences:
            raise DataError(
                f"{shards.folder} has {shards.num_tokens} tokens, fewer than one sequence "
                f"of {length}",
                fix="use a shorter sequence_length or a larger corpus",
            )

    def spans(self, number: int) -> list[tuple[int, int]]:
        epoch, position = divmod(number, self.num_sequences)
        order = shuffled(self.num_sequences, derive_seed(self._seed, "order", epoch))
        offset = derive_seed(self._seed, "offset", epoch)
        num_tokens = self.shards.num_tokens
        start = (offset + order(position) * self._length) % num_tokens
        stop = start + self._length
        if stop <= num_tokens:
            return [(start, stop)]
        return [(start, num_tokens), (0, stop - num_tokens)]


class _BestFitStream:
    """Sequences of whole documents, at most ``length`` tokens each."""

    def __init__(self, shards: TokenShards, length: int, seed: int) -> None:
        self.shards, self._seed = shards, seed
        self._starts, self._lengths = cut_documents(shards.offsets, length)
        self._pieces, self._bins = group_by_bin(best_fit(self._lengths, length))
        self.num_sequences = len(self._bins) - 1

    def spans(self, number: int) -> list[tuple[int, int]]:
        epoch, position = divmod(number, self.num_sequences)
        order = shuffled(self.num_sequences, derive_seed(self._seed, "order", epoch))
        bin_ = order(position)
        pieces = self._pieces[self._bins[bin_] : self._bins[bin_ + 1]]
        starts = self._starts[pieces]
        return list(zip(starts.tolist(), (starts + self._lengths[pieces]).tolist(), strict=True))


def sequential_batches(
    shards: TokenShards, *, sequence_length: int, tokens_per_batch: int
) -> Iterator[Batch]:
    """Yield every token once, in order: for held-out loss.

    The targets are all tokens but the first of each document. The context of a token is what
    precedes it in its document and its sequence of ``sequence_length`` tokens.
    """
    step = count_sequences(sequence_length, tokens_per_batch) * sequence_length
    for first in range(0, shards.num_tokens, step):
        last = min(first + step, shards.num_tokens)
        cuts = [*range(first, last, sequence_length), last]
        yield concatenate([read_span(shards, a, b) for a, b in itertools.pairwise(cuts)])


def read_span(shards: TokenShards, start: int, stop: int) -> Batch:
    """Return tokens ``start`` to ``stop`` of the stream with their targets and boundaries."""
    window = shards.read(start, min(stop + 1, shards.num_tokens))
    tokens_T = window[: stop - start]
    labels_T = np.full(stop - start, IGNORE, dtype=np.int64)
    labels_T[: len(window) - 1] = window[1:]
    lengths = split_at_documents(shards.offsets, start, stop)
    ends = start + np.cumsum(lengths)
    is_document_end = shards.offsets[np.searchsorted(shards.offsets, ends)] == ends
    labels_T[(ends - start - 1)[is_document_end]] = IGNORE
    return Batch(tokens_T, labels_T, tuple(lengths.tolist()))


def count_sequences(sequence_length: int, tokens_per_batch: int) -> int:
    """Return how many sequences make a batch.

    Raises:
        ConfigError: a batch is not a whole number of sequences.
    """
    if sequence_length < 2:
        raise ConfigError(f"sequence_length is {sequence_length}", fix="use at least 2")
    if tokens_per_batch < sequence_length or tokens_per_batch % sequence_length:
        nearest = max(1, round(tokens_per_batch / sequence_length)) * sequence_length
        raise ConfigError(
            f"tokens_per_batch {tokens_per_batch} is not a multiple of sequence_length "
            f"{sequence_length}",
            fix=f"use tokens_per_batch {nearest}",
        )
    return tokens_per_batch // sequence_length


def _open_stream(shards: TokenShards, length: int, seed: int, packing: Packing) -> _Stream:
    if packing == "concat":
        return _ConcatStream(shards, length, seed)
    if packing == "best_fit":
        return _BestFitStream(shards, length, seed)
    raise ConfigError(f"packing is {packing!r}", fix="use 'concat' or 'best_fit'")
