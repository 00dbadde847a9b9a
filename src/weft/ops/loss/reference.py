"""Cross-entropy and log-probabilities with full logits. T tokens, D width, V vocabulary."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from weft.ops.loss.softcap import soft_cap


def linear_cross_entropy(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    labels_T: Tensor,
    chunk_size: int,
    ignore_index: int,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (summed negative log-likelihood, number of labels that count)."""
    del chunk_size  # the definition has no chunks
    logits_TV = soft_cap(_wide(F.linear(hidden_TD, weight_VD.to(hidden_TD.dtype))), softcap)
    loss = F.cross_entropy(logits_TV, labels_T, ignore_index=ignore_index, reduction="sum")
    return loss, (labels_T != ignore_index).sum()


def linear_log_probs(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    targets_T: Tensor,
    temperature: float,
    chunk_size: int,
    softcap: float | None = None,
) -> Tensor:
    """Return the log-probability of each target under softmax(logits / temperature)."""
    del chunk_size
    logits_TV = soft_cap(_wide(F.linear(hidden_TD, weight_VD.to(hidden_TD.dtype))), softcap)
    logits_TV = logits_TV / temperature
    return logits_TV.log_softmax(-1).gather(-1, targets_T.unsqueeze(-1)).squeeze(-1)


def _wide(logits_TV: Tensor) -> Tensor:
    return logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32))
