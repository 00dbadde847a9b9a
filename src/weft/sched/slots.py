"""From block tables to slots: a slot is one position's place in a layer's key and value tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def slot_mapping(
    blocks: Sequence[int], block_size: int, num_tokens: int, *, start: int = 0
) -> np.ndarray:
    """Return the slots of positions `start` .. `start + num_tokens - 1` as int64.

    Position p is in slot `blocks[p // block_size] * block_size + p % block_size`
    (PagedAttention, Kwon et al. 2023, arXiv:2309.06180).

    >>> slot_mapping([20, 25], block_size=4, num_tokens=7)
    array([ 80,  81,  82,  83, 100, 101, 102])
    """
    positions = np.arange(start, start + num_tokens)
    return np.asarray(blocks, dtype=np.int64)[positions // block_size] * block_size + (
        positions % block_size
    )
