"""A training batch: flat tokens, their targets and where each document ends.

Letters: T tokens of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.core.errors import DataError

IGNORE = -100
"""The label of a position that has no target (the value cross-entropy ignores by default)."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Flat tokens of several documents; a model never attends from one document to another.

    Attributes:
        tokens_T: Token ids, int64.
        labels_T: Target of each position, already shifted inside its document, or ``IGNORE``.
        lengths: Tokens of each document piece in order; their sum is T.

    Raises:
        DataError: the three do not fit together.
    """

    tokens_T: np.ndarray
    labels_T: np.ndarray
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.tokens_T.shape != self.labels_T.shape or self.tokens_T.ndim != 1:
            raise DataError(
                f"tokens have shape {self.tokens_T.shape} and labels {self.labels_T.shape}",
                fix="give two flat arrays of the same length",
            )
        if sum(self.lengths) != len(self.tokens_T) or min(self.lengths, default=1) < 1:
            raise DataError(
                f"document lengths sum to {sum(self.lengths)} for {len(self.tokens_T)} tokens",
                fix="give one positive length for each document",
            )

    def __len__(self) -> int:
        return len(self.tokens_T)

    @property
    def num_targets(self) -> int:
        """Positions that count in the loss; the divisor of a step is the sum over its batches."""
        return int(np.count_nonzero(self.labels_T != IGNORE))


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Join batches; documents stay apart.

    Raises:
        DataError: there is nothing to join.
    """
    if not batches:
        raise DataError("there are no batches to join", fix="give at least one")
    return Batch(
        np.concatenate([batch.tokens_T for batch in batches]),
        np.concatenate([batch.labels_T for batch in batches]),
        tuple(length for batch in batches for length in batch.lengths),
    )
