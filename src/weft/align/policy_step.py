"""The policy gradient as an objective that ``weft.train.step`` minimises. M action tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from weft.align.kl import kl_per_token
from weft.align.mismatch import correction_weights
from weft.align.objective import Objective
from weft.align.policy_batch import PolicyBatch
from weft.align.policy_loss import aggregate, policy_loss
from weft.data.batch import IGNORE
from weft.models.decoder import Decoder
from weft.models.heads import log_probs
from weft.nn.context import StepContext
from weft.train.objective import LossSum, to_device


def action_log_probs(model: Decoder, batch: PolicyBatch, *, temperature: float) -> Tensor:
    """Return log p(action) of each action under softmax(logits / temperature), [M].

    The head is computed only where an action follows: prompts cost no logits.
    """
    packed, device = batch.packed, model.device
    ctx = StepContext.packed(packed.lengths, device=device)
    hidden_TD = model(to_device(packed.tokens_T, device), ctx)
    rows_M = np.flatnonzero(packed.labels_T != IGNORE)
    targets_M = to_device(packed.labels_T[rows_M], device)
    hidden_MD = hidden_TD.index_select(0, to_device(rows_M, device))
    return log_probs(model, hidden_MD, targets_M, temperature=temperature)


@torch.no_grad()
def frozen_log_probs(
    model: Decoder, batches: Sequence[PolicyBatch], *, temperature: float
) -> list[np.ndarray]:
    """Return what a policy that is not trained says of the actions of each batch."""
    return [
        action_log_probs(model, batch, temperature=temperature).cpu().numpy() for batch in batches
    ]


class PolicyObjective:
    """Maps a model and a ``PolicyBatch`` to (sum, count, stats); satisfies ``train.Objective``.

    Args:
        objective: The algorithm.
        temperature: That of the sampler.
        max_new_tokens: The fixed length of Dr. GRPO's divisor.

    ``seen`` keeps the trainer's log-probabilities of the last step's micro-batches, so that the
    mismatch with the sampler is measured without a further forward pass.
    """

    def __init__(self, objective: Objective, *, temperature: float, max_new_tokens: int) -> None:
        self.objective = objective
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.seen: list[Tensor] = []

    def __call__(self, model: Decoder, batch: PolicyBatch) -> LossSum:
        """Return the loss sum of one micro-batch."""
        choices, device = self.objective, model.device
        log_probs_M = action_log_probs(model, batch, temperature=self.temperature)
        self.seen.append(log_probs_M.detach())
        behaviour_M = to_device(batch.behaviour_M, device)
        old_M = behaviour_M if batch.old_M is None else to_device(batch.old_M, device)
        weights_M = None
        if choices.correction != "none":
            weights_M = correction_weights(old_M, behaviour_M, choices.correction)
        sample_M = to_device(batch.sample_M, device)
        loss = policy_loss(
            log_probs_M,
            old_M,
            to_device(batch.advantages_M, device),
            sample_M,
            batch.num_samples,
            choices.loss,
            weights_M=weights_M,
            fixed_length=self.max_new_tokens,
        )
        stats = {**loss.stats, "num_actions": torch.tensor(float(len(log_probs_M)))}
        if batch.reference_M is None:
            return LossSum(loss.loss_sum, loss.count, stats)
        kl_M = kl_per_token(log_probs_M, to_device(batch.reference_M, device), choices.kl_estimator)
        lengths_S = torch.bincount(sample_M, minlength=batch.num_samples).to(kl_M.dtype)
        kl_sum, _ = aggregate(
            kl_M, sample_M, lengths_S, choices.loss.aggregation, self.max_new_tokens
        )
        stats["reference_kl_sum"] = kl_M.detach().sum()
        return LossSum(loss.loss_sum + choices.kl_coefficient * kl_sum, loss.count, stats)
