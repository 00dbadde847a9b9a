"""The likeliest alternatives beside each drawn token.

Log-probabilities are those of the distribution the token was drawn from: after penalties,
temperature and truncation for a drawing row (the behaviour policy of reinforcement learning),
after penalties at temperature one for a greedy row. Tokens that could not be drawn have no
log-probability and are left out, so a truncated row may report fewer than it asked for.

Shapes: R rows that sample, V vocabulary.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from weft.engine.sampling.batch import SamplingBatch
from weft.engine.sampling.pipeline import Draws

Alternatives = tuple[tuple[int, float], ...]


def alternatives(draws: Draws, batch: SamplingBatch) -> list[Alternatives]:
    """Return per row its ``num_top`` likeliest (token, log-probability), likeliest first."""
    found: list[Alternatives] = [()] * batch.num_rows
    for rows, logprobs_RV in draws.shaped:
        num_top = int(batch.num_top_R[rows].max())
        if num_top > 0:
            _fill(found, rows, logprobs_RV, batch.num_top_R, num_top)
    return found


def _fill(
    found: list[Alternatives],
    rows: np.ndarray,
    logprobs_RV: Tensor,
    num_top_R: np.ndarray,
    num_top: int,
) -> None:
    top = logprobs_RV.topk(min(num_top, logprobs_RV.shape[-1]), dim=-1)
    for row, values, tokens in zip(rows, top.values.tolist(), top.indices.tolist(), strict=True):
        pairs = zip(tokens[: num_top_R[row]], values[: num_top_R[row]], strict=True)
        found[row] = tuple((token, value) for token, value in pairs if value > float("-inf"))
