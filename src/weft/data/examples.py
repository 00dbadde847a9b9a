"""Batches of fine-tuning examples: only masked-in tokens are targets, examples stay apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from weft.core.errors import ConfigError, DataError
from weft.data.batch import IGNORE, Batch, concatenate
from weft.data.loader import count_sequences
from weft.data.pack import best_fit, group_by_bin
from weft.data.permutation import derive_seed, shuffled


class MaskedExample(Protocol):
    """What ``weft.text.render.Renderer`` returns: tokens, and which of them to learn."""

    @property
    def tokens(self) -> Sequence[int]: ...

    @property
    def mask(self) -> Sequence[bool]: ...


class ExampleLoader:
    """Draws batches of examples as a pure function of (seed, index).

    Packing places several examples into one sequence; each remains a document of its own, so the
    loss is that of the examples alone. An example longer than ``sequence_length`` is cut at its
    end (``num_truncated`` counts them); one without a target left is not used (``num_dropped``).

    Args:
        examples: Tokens with masks, for example of ``weft.text.render.Renderer``.
        tokens_per_batch: Limit of a batch; a multiple of ``sequence_length``.
        seed: Decides the order of every epoch.
        packing: ``"best_fit"``, or ``"none"`` for one example in each sequence.
        sequence_length: Longest example; the capacity of a packed sequence.

    Raises:
        DataError: there is no example with a target.
        ConfigError: sizes that do not fit together.
    """

    def __init__(
        self,
        examples: Sequence[MaskedExample],
        *,
        tokens_per_batch: int,
        seed: int,
        sequence_length: int,
        packing: Literal["best_fit", "none"] = "best_fit",
    ) -> None:
        self.sequences_per_batch = count_sequences(sequence_length, tokens_per_batch)
        cut = [_to_batch(example, sequence_length) for example in examples]
        self._batches = [batch for batch in cut if batch is not None]
        self.num_examples = len(self._batches)
        self.num_dropped = len(cut) - self.num_examples
        self.num_truncated = sum(len(example.tokens) > sequence_length for example in examples)
        if not self._batches:
            raise DataError(
                f"none of {len(examples)} examples has a token to learn within its first "
                f"{sequence_length} tokens",
                fix="check the loss masks, or use a longer sequence_length",
            )
        self._seed = seed
        self._pieces, self._bins = group_by_bin(self._place(packing, sequence_length))
        self.num_sequences = len(self._bins) - 1

    @property
    def batches_per_epoch(self) -> int:
        """Batches after which every example was drawn once."""
        return -(-self.num_sequences // self.sequences_per_batch)

    def batch(self, index: int) -> Batch:
        """Return batch ``index`` (from 0, without end); epochs are shuffled anew."""
        first = index * self.sequences_per_batch
        chosen: list[Batch] = []
        for number in range(first, first + self.sequences_per_batch):
            epoch, position = divmod(number, self.num_sequences)
            order = shuffled(self.num_sequences, derive_seed(self._seed, "examples", epoch))
            bin_ = order(position)
            pieces = self._pieces[self._bins[bin_] : self._bins[bin_ + 1]]
            chosen += [self._batches[piece] for piece in pieces.tolist()]
        return concatenate(chosen)

    def _place(self, packing: str, capacity: int) -> np.ndarray:
        lengths = np.array([len(batch) for batch in self._batches], dtype=np.int64)
        if packing == "best_fit":
            return best_fit(lengths, capacity)
        if packing == "none":
            return np.arange(len(lengths))
        raise ConfigError(f"packing is {packing!r}", fix="use 'best_fit' or 'none'")


def _to_batch(example: MaskedExample, sequence_length: int) -> Batch | None:
    """Shift the masked tokens to labels; None when nothing is left to learn."""
    if len(example.tokens) != len(example.mask):
        raise DataError(
            f"an example has {len(example.tokens)} tokens and {len(example.mask)} mask entries",
            fix="give one mask entry for each token",
        )
    tokens_T = np.array(example.tokens[:sequence_length], dtype=np.int64)
    mask_T = np.array(example.mask[:sequence_length], dtype=bool)
    labels_T = np.full(len(tokens_T), IGNORE, dtype=np.int64)
    labels_T[:-1] = np.where(mask_T[1:], tokens_T[1:], IGNORE)
    if not mask_T[1:].any():
        return None
    return Batch(tokens_T, labels_T, (len(tokens_T),))
