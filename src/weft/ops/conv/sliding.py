"""The short causal convolution as a weighted sum of shifted views.

T tokens, B sequences, L tokens of one sequence, D channels, W taps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from weft.ops.linear_attention.reference import work_dtype


def short_conv(
    x_TD: Tensor,
    weight_DW: Tensor,
    bias_D: Tensor | None,
    lengths: tuple[int, ...],
    initial_BWD: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Compute what the reference computes."""
    num_before, num_sequences = weight_DW.shape[1] - 1, len(lengths)
    if initial_BWD is None:
        initial_BWD = x_TD.new_zeros(num_sequences, num_before, x_TD.shape[1])
    initial_BWD = initial_BWD.to(x_TD.dtype)
    if min(lengths) == max(lengths):
        seen_BLD = torch.cat([initial_BWD, x_TD.unflatten(0, (num_sequences, -1))], dim=1)
        y_BLD = _slide(seen_BLD, weight_DW, bias_D)
        return y_BLD.flatten(0, 1), seen_BLD[:, seen_BLD.shape[1] - num_before :]
    # Each sequence behind its own last inputs; sums across a border are computed and dropped.
    rows_L, outputs_T, finals_BW = (
        torch.from_numpy(index).to(x_TD.device) for index in _borders(lengths, num_before)
    )
    seen_LD = torch.cat([initial_BWD.flatten(0, 1), x_TD]).index_select(0, rows_L)
    y_LD = _slide(seen_LD[None], weight_DW, bias_D)[0]
    return y_LD.index_select(0, outputs_T), seen_LD[finals_BW]


def _slide(seen_BLD: Tensor, weight_DW: Tensor, bias_D: Tensor | None) -> Tensor:
    dtype, work = seen_BLD.dtype, work_dtype(seen_BLD)
    seen_BLD, weight_DW = seen_BLD.to(work), weight_DW.to(work)
    num_taps = weight_DW.shape[1]
    num_outputs = seen_BLD.shape[1] - num_taps + 1
    y_BLD = seen_BLD[:, :num_outputs] * weight_DW[:, 0]
    for tap in range(1, num_taps):
        y_BLD = torch.addcmul(y_BLD, seen_BLD[:, tap : tap + num_outputs], weight_DW[:, tap])
    return (y_BLD if bias_D is None else y_BLD + bias_D).to(dtype)


def _borders(lengths: tuple[int, ...], num_before: int) -> tuple[np.ndarray, ...]:
    """Return where inputs come from, where outputs lie and which inputs are kept."""
    lengths_B = np.asarray(lengths, dtype=np.int64)
    sequences_B = np.arange(len(lengths_B))
    ends_B = lengths_B.cumsum() + (sequences_B + 1) * num_before  # behind each extended sequence
    sequence_T = np.repeat(sequences_B, lengths_B)
    places_T = np.arange(lengths_B.sum()) + (sequence_T + 1) * num_before
    rows_L = np.empty(ends_B[-1], dtype=np.int64)
    rows_L[places_T] = np.arange(len(places_T)) + len(lengths_B) * num_before
    starts_B = ends_B - lengths_B - num_before
    before_BW = starts_B[:, None] + np.arange(num_before)
    rows_L[before_BW] = np.arange(before_BW.size).reshape(before_BW.shape)
    finals_BW = ends_B[:, None] - num_before + np.arange(num_before)
    return rows_L, places_T - num_before, finals_BW
