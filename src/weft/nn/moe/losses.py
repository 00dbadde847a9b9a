"""How even the load is, and what makes it so. T tokens, E experts, K experts per token.

The losses differ in what they mean by even. With f_e the share of choices that went to expert e
and P_e its mean score:

- ``load_loss``         E sum f P: 1 when uniform, at most E. GShard, Switch, GLaM, ST-MoE.
- ``chosen_load_loss``  the same with shares per token and P counted where chosen: K^2 / E when
  uniform, E when all tokens choose the same experts.
- ``sequence_loss``     ``load_loss`` within each sequence (DeepSeek-V3).
- ``importance_loss``   squared coefficient of variation of the summed scores (Shazeer 2017).

GLaM (arXiv:2112.06905) is top-2 with ``load_loss`` times 0.01; ST-MoE (arXiv:2202.08906) adds
``z_loss`` times 0.001. Without a loss, ``corrected_bias`` or ``quantile_bias`` move the bias that
steers the choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from weft.nn.moe.record import RoutingRecord
from weft.ops.grouped.order import expert_counts

_TINY = 1e-20


def balance_loss(record: RoutingRecord, lengths: Sequence[int]) -> Tensor:
    """Return a layer's weighted losses together, a scalar: balancing and z-loss as its spec says.

    ``lengths`` are the tokens of each sequence, for the loss within sequences.
    """
    router, top_k = record.spec.router, record.spec.top_k
    total = record.scores_TE.new_zeros(())
    if router.aux_loss and router.aux_kind == "importance":
        total = total + router.aux_loss * importance_loss(record.scores_TE)
    elif router.aux_loss:
        parts = lengths if router.aux_kind == "sequence" else [record.ids_TK.shape[0]]
        total = total + router.aux_loss * sequence_loss(
            record.scores_TE, record.ids_TK, parts, top_k
        )
    if router.z_loss:
        total = total + router.z_loss * z_loss(record.logits_TE)
    return total


def load_loss(scores_TE: Tensor, ids_TK: Tensor, top_k: int) -> Tensor:
    """Return E sum_e f_e P_e with f_e = choices of e / (T K) and P_e the mean share of the scores.

    Scores are divided by their sum first, which changes nothing for a softmax. Gradients flow
    through P only, so experts chosen too often lose score.

    Source: Fedus et al. 2021, arXiv:2101.03961, equation 4, divided by K for K choices.
    """
    num_tokens, num_experts = scores_TE.shape
    shares_TE = scores_TE / (scores_TE.sum(-1, keepdim=True) + _TINY)
    f_E = expert_counts(ids_TK, num_experts).to(scores_TE.dtype) / max(num_tokens * top_k, 1)
    return num_experts * (f_E * shares_TE.mean(0)).sum()


def chosen_load_loss(scores_TE: Tensor, ids_TK: Tensor) -> Tensor:
    """Return E sum_e f_e P_e with f_e = choices of e / T and P_e the mean score where e is chosen.

    K^2 / E for uniform scores and choices; E when every token puts all its score on the same K.
    """
    num_tokens, num_experts = scores_TE.shape
    none_T1 = scores_TE.new_zeros(num_tokens, 1)
    marks = torch.cat([torch.zeros_like(scores_TE), none_T1], 1).scatter(1, ids_TK, 1.0)
    chosen_TE = marks[:, :num_experts]  # choices that were left out point behind the last expert
    f_E = chosen_TE.sum(0) / max(num_tokens, 1)
    return num_experts * (f_E * (scores_TE * chosen_TE).mean(0)).sum()


def sequence_loss(scores_TE: Tensor, ids_TK: Tensor, lengths: Sequence[int], top_k: int) -> Tensor:
    """Return the mean over tokens of their sequence's ``load_loss``.

    Source: DeepSeek-AI 2024, arXiv:2412.19437, equations 17 to 20.
    """
    losses = [
        length * load_loss(scores, ids, top_k)
        for length, scores, ids in zip(
            lengths, scores_TE.split(tuple(lengths)), ids_TK.split(tuple(lengths)), strict=True
        )
        if length
    ]
    return torch.stack(losses).sum() / max(sum(lengths), 1)


def importance_loss(scores_TE: Tensor) -> Tensor:
    """Return the squared coefficient of variation of the experts' summed scores.

    0 when even, E - 1 when one expert has all.

    Source: Shazeer et al. 2017, arXiv:1701.06538, equation 6.
    """
    importance_E = scores_TE.sum(0)
    mean = importance_E.mean()
    return (importance_E - mean).square().mean() / (mean.square() + _TINY)


def z_loss(logits_TE: Tensor) -> Tensor:
    """Return the mean square of log sum exp of the router's outputs, which keeps them small.

    Source: Zoph et al. 2022, arXiv:2202.08906, equation 5.
    """
    return logits_TE.logsumexp(-1).square().mean()


def imbalance(counts_E: Tensor) -> Tensor:
    """Return mean((c - mean c)^2 / (mean c)^2): 0 when even, E - 1 when one expert takes all."""
    counts_E = counts_E.double()
    mean = counts_E.mean()
    return ((counts_E - mean).square() / mean.square().clamp(min=_TINY)).mean()


def corrected_bias(bias_E: Tensor, counts_E: Tensor, rate: float) -> Tensor:
    """Return the bias raised by ``rate`` where the load is below the mean, lowered where above.

    Source: Wang et al. 2024, arXiv:2408.15664, algorithm 1.
    """
    counts_E = counts_E.to(bias_E.dtype)
    return bias_E + rate * torch.sign(counts_E.mean() - counts_E)


def quantile_bias(scores_TE: Tensor, bias_E: Tensor, top_k: int) -> Tensor:
    """Return a bias with which about T K / E tokens rank each expert among their best K.

    One round of the dual ascent of the even assignment problem: a token's threshold lies between
    its K-th and next best biased score, an expert's bias is minus the quantile 1 - K / E of how
    far its scores stand above the tokens' thresholds. No rate has to be chosen.

    Source: quantile balancing, Su 2026, https://kexue.fm/archives/11619.
    """
    num_experts = scores_TE.shape[1]
    if top_k == num_experts:
        return torch.zeros_like(bias_E)
    best = (scores_TE + bias_E).topk(top_k + 1, dim=-1).values
    threshold_T1 = (best[:, -2:-1] + best[:, -1:]) / 2
    return -torch.quantile(scores_TE - threshold_T1, 1 - top_k / num_experts, dim=0)
