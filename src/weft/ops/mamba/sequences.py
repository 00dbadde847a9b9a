"""Mamba's recurrence for sequences laid end to end.

T tokens, B sequences, D channels, S numbers of state per channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.dispatch import no_autocast
from weft.ops.linear_attention.ragged import Inputs, Result, dispatch
from weft.ops.linear_attention.reference import work_dtype
from weft.ops.mamba.discretise import mamba_step
from weft.ops.mamba.selective import selective_scan

# The scan takes log2 of it passes, each of which keeps D S numbers per token for the gradient.
CHUNK_SIZE = 64


def mamba(
    x_TD: Tensor,
    step_TD: Tensor,
    rate_DS: Tensor,
    b_TS: Tensor,
    c_TS: Tensor,
    lengths: tuple[int, ...],
    initial_BDS: Tensor | None = None,
) -> Result:
    """Return h_t c_t for h_t = exp(rate step_t) h_{t-1} + step_t x_t b_t, [T, D], and the final h.

    It is linear attention with one head per channel and values of width one, whose products would
    be too narrow to be worth a matrix: decoding takes one step of all sequences, longer runs a
    prefix scan per chunk.

    Source: Gu and Dao 2023, arXiv:2312.00752, algorithm 2.
    """
    work = work_dtype(x_TD)
    rate_DS = rate_DS.to(work)
    if initial_BDS is None:
        initial_BDS = x_TD.new_zeros(len(lengths), *rate_DS.shape, dtype=work)

    def one(inputs: Inputs, initial: Tensor | None) -> Result:
        assert initial is not None
        log_decay_BDS, written_BDS, c_BS = _terms(inputs, rate_DS)
        state_BDS = log_decay_BDS.exp() * initial + written_BDS
        return torch.einsum("bds,bs->bd", state_BDS, c_BS), state_BDS

    def many(inputs: Inputs, lengths: tuple[int, ...], initial: Tensor | None) -> Result:
        assert initial is not None
        parts = zip(*(x.split(lengths) for x in inputs), initial, strict=True)
        outputs, finals = zip(*(_chunks(x, state, rate_DS) for *x, state in parts), strict=True)
        return torch.cat(outputs), torch.stack(finals)

    inputs_T = [x.to(work) for x in (x_TD, step_TD, b_TS, c_TS)]
    with no_autocast(x_TD.device):
        out_TD, final_BDS = dispatch(
            inputs_T, lengths, initial_BDS.to(work), step=one, chunkwise=many
        )
    return out_TD.to(x_TD.dtype), final_BDS


def _chunks(inputs_T: Inputs, state_DS: Tensor, rate_DS: Tensor) -> Result:
    outputs = []
    for chunk in zip(*(x.split(CHUNK_SIZE) for x in inputs_T), strict=True):
        out_CD, state_DS = selective_scan(*_terms(chunk, rate_DS), state_DS)
        outputs.append(out_CD)
    return torch.cat(outputs), state_DS


def _terms(inputs_T: Inputs, rate_DS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-decays and what is written, [T, D, S], and what reads, [T, S]."""
    x_TD, step_TD, b_TS, c_TS = inputs_T
    log_decay_TDS, factor_TD1 = mamba_step(rate_DS, step_TD[..., None])
    return log_decay_TDS, factor_TD1 * x_TD[..., None] * b_TS[:, None], c_TS
