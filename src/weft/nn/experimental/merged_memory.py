"""Keys and values that merge instead of piling up: Dynamic Memory Compression. Experimental.

T tokens of one document, N heads with keys of their own, H head width, S slots.

Nawrot et al. 2024 (arXiv:2403.09636): every head decides for every token whether it opens a new
slot or is averaged into the last one, weighted by importance. Decisions and importances are the
sigmoids of one dimension of key and query, whose products therefore miss it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# So that a decision starts as "open a new slot" and the model as the one it was.
START_BIAS = -5.0


class Merged(NamedTuple):
    """Running averages of keys and values.

    Attributes:
        keys_TNH: What the slot of each token holds once the token is in it.
        values_TNH: The same of values.
        hidden_TN: Logarithm of the share in which a slot is still open for later queries: the one
            after it did not merge into it. The last is open.
    """

    keys_TNH: Tensor
    values_TNH: Tensor
    hidden_TN: Tensor


def merge_decisions(q_TNH: Tensor, k_TNH: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return merge shares alpha and importances omega, [T, N], and q and k without their source."""
    alpha_TN = (k_TNH[..., 0].float() + START_BIAS).sigmoid()
    omega_TN = q_TNH[..., 0].float().sigmoid()
    rest = torch.ones_like(q_TNH[0, 0]).index_fill(0, torch.tensor(0, device=q_TNH.device), 0.0)
    return alpha_TN, omega_TN, q_TNH * rest, k_TNH * rest


def merge_tokens(k_TNH: Tensor, v_TNH: Tensor, alpha_TN: Tensor, omega_TN: Tensor) -> Merged:
    """Average each token into its predecessor's slot by the share alpha, as training does.

    z_t = alpha_t z_{t-1} + omega_t, k_t = (alpha_t z_{t-1} k_{t-1} + omega_t k_t) / z_t, and so
    with v. Decisions of 0 and 1 are what inference does; those between let gradients through. The
    first token opens a slot whatever its share.
    """
    rows = torch.cat([k_TNH, v_TNH], dim=-1)
    row, weight_N = rows[0], omega_TN[0]
    merged = [row]
    for t in range(1, len(rows)):
        kept_N = alpha_TN[t] * weight_N
        weight_N = kept_N + omega_TN[t]
        row = (kept_N[:, None] * row + omega_TN[t][:, None] * rows[t]) / weight_N[:, None]
        merged.append(row)
    keys_TNH, values_TNH = torch.stack(merged).split(k_TNH.shape[-1], dim=-1)
    last_1N = torch.zeros_like(alpha_TN[:1])
    return Merged(keys_TNH, values_TNH, torch.cat([torch.log1p(-alpha_TN[1:]), last_1N]))


def attend_merged(q_TNH: Tensor, merged: Merged, scale: float) -> Tensor:
    """Attend causally to slots, [T, N, H].

    A query reads its own slot as it is; of earlier tokens only what no later one has merged into.
    """
    scores_NTT = torch.einsum("tnh,snh->nts", q_TNH, merged.keys_TNH) * scale
    hidden_NTT = merged.hidden_TN.T[:, None].expand_as(scores_NTT)
    ahead_TT = torch.ones(scores_NTT.shape[1:], dtype=torch.bool, device=q_TNH.device).triu(1)
    own = torch.eye(len(q_TNH), dtype=torch.bool, device=q_TNH.device)
    scores_NTT = scores_NTT + hidden_NTT.masked_fill(own, 0.0)
    weights_NTT = scores_NTT.masked_fill(ahead_TT, float("-inf")).softmax(-1)
    return torch.einsum("nts,snv->tnv", weights_NTT, merged.values_TNH)
