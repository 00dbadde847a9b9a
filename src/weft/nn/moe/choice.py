"""Which experts a token uses, as functions of scores. T tokens, E experts, K experts per token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from weft.ops.activation.stable import stable_sigmoid, stable_softplus
from weft.ops.grouped.order import expert_order
from weft.spec import RouterSpec

# Knuth's multiplicative hash: 2^32 over the golden ratio, odd; and a second odd number for layers.
_HASH_MULTIPLIER = 2_654_435_761
_LAYER_MULTIPLIER = 40_503
# A sum of chosen scores may be zero in float32 when all are tiny.
_MIN_SUM = 1e-20


def scores_of(logits_TE: Tensor, spec: RouterSpec) -> Tensor:
    """Return the scores of all experts, [T, E]; the probabilities over all for "softmax_chosen"."""
    if spec.score == "sigmoid":
        return stable_sigmoid(logits_TE)
    if spec.score == "sqrt_softplus":
        return stable_softplus(logits_TE).sqrt()
    return logits_TE.softmax(-1)


def top_experts(ranks_TE: Tensor, num_chosen: int, spec: RouterSpec) -> Tensor:
    """Return each token's best experts, best first, [T, K], within its best groups.

    Source: group-limited choice of DeepSeek-V2 ("max", arXiv:2405.04434) and V3 ("top2_sum",
    arXiv:2412.19437).
    """
    if spec.num_kept_groups < spec.num_groups:
        ranks_TE = ranks_TE.masked_fill(~_kept_groups(ranks_TE, spec), float("-inf"))
    return ranks_TE.topk(num_chosen, dim=-1).indices


def _kept_groups(ranks_TE: Tensor, spec: RouterSpec) -> Tensor:
    """Return which experts are in a group the token may use, [T, E], bool."""
    grouped = ranks_TE.unflatten(-1, (spec.num_groups, -1))
    size = grouped.shape[-1]
    num_best = min(2, size) if spec.group_score == "top2_sum" else 1
    group_ranks = grouped.topk(num_best, dim=-1).values.sum(-1)
    kept = group_ranks.topk(spec.num_kept_groups, dim=-1).indices
    mask = torch.zeros_like(group_ranks, dtype=torch.bool).scatter_(1, kept, True)
    return mask.repeat_interleave(size, dim=-1)


def weights_of(scores_TE: Tensor, logits_TE: Tensor, ids_TK: Tensor, spec: RouterSpec) -> Tensor:
    """Return the weights of chosen experts, [T, K]; experts called E ("none") weigh nothing."""
    num_experts = logits_TE.shape[-1]
    none_TK = ids_TK == num_experts
    safe_TK = ids_TK.clamp(max=num_experts - 1)
    if spec.chosen_only:
        chosen_TK = logits_TE.gather(1, safe_TK).masked_fill(none_TK, float("-inf")).softmax(-1)
        return chosen_TK.masked_fill(none_TK, 0.0) * spec.weight_scale
    chosen_TK = scores_TE.gather(1, safe_TK).masked_fill(none_TK, 0.0)
    if spec.normalise and spec.kind != "switch":
        chosen_TK = chosen_TK / (chosen_TK.sum(-1, keepdim=True) + _MIN_SUM)
    return chosen_TK * spec.weight_scale


def random_second(ids_T2: Tensor, scores_TE: Tensor) -> Tensor:
    """Keep a token's second expert with probability twice its share; E where it is left out.

    Source: GShard, Lepikhin et al. 2020, arXiv:2006.16668, algorithm 1.
    """
    chosen_T2 = scores_TE.gather(1, ids_T2)
    share_T = chosen_T2[:, 1] / chosen_T2.sum(-1)
    dropped_T = torch.rand_like(share_T) >= 2 * share_T
    second_T = ids_T2[:, 1].masked_fill(dropped_T, scores_TE.shape[-1])
    return torch.stack([ids_T2[:, 0], second_T], dim=1)


def drop_overflow(ids_TK: Tensor, num_experts: int, capacity: int) -> Tensor:
    """Replace choices beyond an expert's capacity by E; first choices come before second ones.

    Within a choice, earlier tokens come first (arXiv:2006.16668, section 3.2).
    """
    by_choice_A = ids_TK.t().flatten()
    order = expert_order(by_choice_A, num_experts)
    starts_E = F.pad(order.counts_E.cumsum(0) - order.counts_E, (0, 1))
    rank_A = order.place_A - starts_E[by_choice_A]
    kept_A = by_choice_A.masked_fill(rank_A >= capacity, num_experts)
    return kept_A.view(ids_TK.shape[1], -1).t().contiguous()


def hash_experts(tokens_T: Tensor, num_experts: int, num_chosen: int, layer: int) -> Tensor:
    """Return experts as a fixed function of the token and the layer, distinct, [T, K].

    Source: Roller et al. 2021, arXiv:2106.04426 (the random hash), with a multiplicative hash in
    place of a table.
    """
    mixed_T = (tokens_T + 1) * _HASH_MULTIPLIER + (layer + 1) * _LAYER_MULTIPLIER
    first_T = ((mixed_T & 0xFFFFFFFF) >> 16) % num_experts
    steps_K = torch.arange(num_chosen, device=tokens_T.device) * (num_experts // num_chosen)
    return (first_T[:, None] + steps_K) % num_experts


def expert_choice(scores_TE: Tensor, num_taken: int) -> tuple[Tensor, Tensor]:
    """Let every expert take its ``num_taken`` best tokens; returns tokens and weights, [E, C].

    Every expert has the same load by construction. A token's experts depend on all other tokens,
    later ones included, so this is no routing for generation.

    Source: Zhou et al. 2022, arXiv:2202.09368.
    """
    weights_CE, tokens_CE = scores_TE.topk(num_taken, dim=0)
    return tokens_CE.t().contiguous(), weights_CE.t()
