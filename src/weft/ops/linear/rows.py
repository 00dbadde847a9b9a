"""How many rows a product needs for each of them to have the bits it has among any others.

A product of few rows is computed in another order than one of many, and then a token's numbers
depend on how many others are in the batch. T tokens, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from weft.ops.linear import onednn

# MKL has a path of its own for fewer than 4 rows, and deals rows out to threads so that a few may
# be left over for one of them; no share of a multiple of 16 is that small (tried with 1 to 64
# threads on an AMD EPYC).
MKL_MULTIPLE = 16


def stable_num_rows(num_rows: int) -> int:
    """Return the least number of rows, ``num_rows`` or more, at which the others do not matter.

    For float32 on the CPU; elsewhere nothing is known.
    """
    if onednn.available():
        return max(num_rows, onednn.MIN_ROWS)
    return -(-num_rows // MKL_MULTIPLE) * MKL_MULTIPLE


def pad_rows(x_TD: Tensor) -> Tensor:
    """Return the rows with zeros below them, ``stable_num_rows`` in all."""
    num_missing = stable_num_rows(x_TD.shape[0]) - x_TD.shape[0]
    return F.pad(x_TD, (0, 0, 0, num_missing)) if num_missing else x_TD
