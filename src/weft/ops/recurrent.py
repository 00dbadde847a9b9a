"""The ops that carry a state along sequences laid end to end.

T tokens, B sequences, G query-key heads, N value heads, K key width, V value width, D channels,
W taps.

All take the tokens of all sequences, the sequences' lengths (each at least 1) and the states they
start with (none means zeros), and return outputs and final states. Sums and states are float32
(float64 for float64 inputs), also under autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.conv import reference as conv_reference
from weft.ops.conv import sliding
from weft.ops.delta import chunkwise as delta_chunkwise
from weft.ops.delta import reference as delta_reference
from weft.ops.dispatch import Implementation, KernelSpec, Tolerance, no_autocast
from weft.ops.linear_attention import chunkwise, step
from weft.ops.linear_attention import reference as linear_reference
from weft.ops.linear_attention.ragged import Inputs, dispatch
from weft.ops.rwkv import chunkwise as rwkv_chunkwise
from weft.ops.rwkv import reference as rwkv_reference

_TOLERANCES = {
    torch.float64: Tolerance(1e-9, 1e-10),
    torch.float32: Tolerance(2e-5, 1e-5),
    torch.bfloat16: Tolerance(1.6e-2, 1e-2),
}

Lengths = tuple[int, ...]
Result = tuple[Tensor, Tensor]


def linear_attention(
    q_TGK: Tensor,
    k_TGK: Tensor,
    v_TNV: Tensor,
    log_decay_TNK: Tensor | None,
    lengths: Lengths,
    initial_BNKV: Tensor | None = None,
) -> Result:
    """Return ``S_t^T q_t`` for ``S_t = exp(log_decay_t) S_{t-1} + k_t v_t^T``, and the final S.

    A log-decay is at most 0 and belongs to a key channel, or with width 1 to a whole head; none
    means no decay. Value head n reads query-key head ``n // (N / G)``. A log-decay below -40
    counts as -40.

    Source: Katharopoulos et al. 2020, arXiv:2006.16236; Yang et al. 2023, arXiv:2312.06635; Dao
    and Gu 2024, arXiv:2405.21060.
    """
    with no_autocast(q_TGK.device):
        return LINEAR_ATTENTION(q_TGK, k_TGK, v_TNV, log_decay_TNK, lengths, initial_BNKV)


def delta_rule(
    q_TGK: Tensor,
    k_TGK: Tensor,
    v_TNV: Tensor,
    beta_TN: Tensor,
    log_decay_TNK: Tensor | None,
    lengths: Lengths,
    initial_BNKV: Tensor | None = None,
) -> Result:
    """Return outputs and final states of the gated delta rule.

    ``S = exp(log_decay_t) S_{t-1}``, then ``S_t = S + k_t beta_t (v_t - S^T k_t)^T`` and
    ``o_t = S_t^T q_t``; decays and heads as in ``linear_attention``. Keys have unit length, or the
    state may grow without bound.

    Source: Yang et al. 2024, arXiv:2412.06464; Kimi Team 2025, arXiv:2510.26692.
    """
    with no_autocast(q_TGK.device):
        return DELTA_RULE(q_TGK, k_TGK, v_TNV, beta_TN, log_decay_TNK, lengths, initial_BNKV)


def wkv(
    decay_D: Tensor,
    bonus_D: Tensor,
    k_TD: Tensor,
    v_TD: Tensor,
    lengths: Lengths,
    initial_B3D: Tensor | None = None,
) -> Result:
    """Return RWKV-4's average of values, [T, D], and the final [B, 3, D].

    Token j counts exp(k_j - (t - 1 - j) decay) at t, the present one exp(k_t + bonus). A state is
    numerator, denominator and the exponent of both.

    Source: Peng et al. 2023, arXiv:2305.13048.
    """
    with no_autocast(k_TD.device):
        return WKV(decay_D, bonus_D, k_TD, v_TD, lengths, initial_B3D)


def short_conv(
    x_TD: Tensor,
    weight_DW: Tensor,
    bias_D: Tensor | None,
    lengths: Lengths,
    initial_BWD: Tensor | None = None,
) -> Result:
    """Return each channel's causal convolution, [T, D], and the last inputs, [B, W - 1, D]."""
    return SHORT_CONV(x_TD, weight_DW, bias_D, lengths, initial_BWD)


def token_shift(x_TD: Tensor, lengths: Lengths, initial_BD: Tensor | None = None) -> Result:
    """Return each token's predecessor in its sequence, [T, D], and the last tokens, [B, D]."""
    ends_B = torch.tensor(lengths, device=x_TD.device).cumsum(0)
    first_B = torch.zeros_like(x_TD[ends_B - 1]) if initial_BD is None else initial_BD.to(x_TD)
    if max(lengths) == 1:
        return first_B, x_TD
    starts_B = ends_B - torch.tensor(lengths, device=x_TD.device)
    return x_TD.roll(1, dims=0).index_copy(0, starts_B, first_B), x_TD[ends_B - 1]


def _linear_attention(
    q_TGK: Tensor,
    k_TGK: Tensor,
    v_TNV: Tensor,
    log_decay_TNK: Tensor | None,
    lengths: Lengths,
    initial_BNKV: Tensor | None,
) -> Result:
    def one(inputs: Inputs, initial: Tensor | None) -> Result:
        q_BGK, k_BGK, v_BNV, log_decay_BNK = inputs
        return step.linear_attention(q_BGK, k_BGK, v_BNV, log_decay_BNK, initial)

    def many(inputs: Inputs, lengths: Lengths, initial: Tensor | None) -> Result:
        q_TGK, k_TGK, v_TNV, log_decay_TNK = inputs
        return chunkwise.linear_attention(q_TGK, k_TGK, v_TNV, log_decay_TNK, lengths, initial)

    inputs_T = (q_TGK, k_TGK, v_TNV, log_decay_TNK)
    return dispatch(inputs_T, lengths, initial_BNKV, step=one, chunkwise=many)


def _delta_rule(
    q_TGK: Tensor,
    k_TGK: Tensor,
    v_TNV: Tensor,
    beta_TN: Tensor,
    log_decay_TNK: Tensor | None,
    lengths: Lengths,
    initial_BNKV: Tensor | None,
) -> Result:
    def one(inputs: Inputs, initial: Tensor | None) -> Result:
        q_BGK, k_BGK, v_BNV, beta_BN, log_decay_BNK = inputs
        return step.linear_attention(q_BGK, k_BGK, v_BNV, log_decay_BNK, initial, beta_BN)

    def many(inputs: Inputs, lengths: Lengths, initial: Tensor | None) -> Result:
        q_TGK, k_TGK, v_TNV, beta_TN, decay_TNK = inputs
        return delta_chunkwise.delta_rule(q_TGK, k_TGK, v_TNV, beta_TN, decay_TNK, lengths, initial)

    inputs_T = (q_TGK, k_TGK, v_TNV, beta_TN, log_decay_TNK)
    return dispatch(inputs_T, lengths, initial_BNKV, step=one, chunkwise=many)


def _always(*_: object) -> bool:
    return True


LINEAR_ATTENTION = KernelSpec(
    "linear_attention",
    linear_reference.linear_attention,
    (Implementation("chunkwise", _linear_attention, _always),),
    tolerances=_TOLERANCES,
)
DELTA_RULE = KernelSpec(
    "delta_rule",
    delta_reference.delta_rule,
    (Implementation("chunkwise", _delta_rule, _always),),
    tolerances=_TOLERANCES,
)
WKV = KernelSpec(
    "wkv",
    rwkv_reference.wkv,
    (Implementation("chunkwise", rwkv_chunkwise.wkv, _always),),
    tolerances=_TOLERANCES,
)
SHORT_CONV = KernelSpec(
    "short_conv",
    conv_reference.short_conv,
    (Implementation("sliding", sliding.short_conv, _always),),
)
RECURRENT_KERNELS = (LINEAR_ATTENTION, DELTA_RULE, WKV, SHORT_CONV)
