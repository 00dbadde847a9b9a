"""One vector per text from the vectors of its tokens. T tokens, B texts, D width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from weft.spec import PoolingSpec


def pool(hidden_TD: Tensor, lengths: tuple[int, ...], spec: PoolingSpec) -> Tensor:
    """Return the vector of each text, [B, D], float32.

    >>> hidden = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
    >>> pool(hidden, (2, 1), PoolingSpec("mean", normalise=False)).tolist()
    [[2.0, 2.0], [0.0, 2.0]]
    """
    vectors_BD = _reduce(hidden_TD.float(), torch.tensor(lengths, device=hidden_TD.device), spec)
    return F.normalize(vectors_BD, dim=-1) if spec.normalise else vectors_BD


def _reduce(hidden_TD: Tensor, lengths_B: Tensor, spec: PoolingSpec) -> Tensor:
    if spec.kind in ("mean", "max"):
        return torch.segment_reduce(hidden_TD, spec.kind, lengths=lengths_B, axis=0)
    ends_B = lengths_B.cumsum(0)
    return hidden_TD[ends_B - 1 if spec.kind == "last" else ends_B - lengths_B]
