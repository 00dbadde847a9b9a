"""Rejection sampling: guesses are judged so that the distribution of tokens is the target's.

A guess x that was drawn from q holds with probability min(1, p(x) / q(x)); if it does not, the
token is drawn from the residual, max(p - q, 0) made to sum to one; behind the last guess that held
it is drawn from p (Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318).
In a tree the guesses that follow the same token are judged in turn, each against the residual of
those before it (Miao et al. 2024, SpecInfer, arXiv:2305.09781); they must have been drawn without
replacement, each from what q leaves behind those before it. A guess that was not drawn at random,
such as a copied one, has q(x) = 1.

p is what the row draws from after all processing: grammar, penalties, temperature, truncation. A
greedy row's has one token of probability one, so its guesses are judged exactly.

Shapes: A rows of one round (``weft.engine.draw``), V vocabulary, C rows that have a candidate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from weft.engine.draw import Walk
from weft.engine.sampling import pipeline, rng
from weft.engine.sampling.batch import SamplingBatch
from weft.engine.speculation.proposer import Probabilities
from weft.ops import row_log_probs

# Streams of random numbers of one row: its own draws the residual.
GUESS_STREAM = 1
_FIRST_JUDGING_STREAM = 1 << 32


class RejectionDraw:
    """Draws for walks so that guesses hold as often as the distributions allow.

    Args:
        probabilities: What the guesses were drawn from.
    """

    def __init__(self, probabilities: Probabilities) -> None:
        self._probabilities = probabilities

    def __call__(
        self, logits_AV: Tensor, batch: SamplingBatch, walks: Sequence[Walk]
    ) -> pipeline.Draws:
        """Draw a token for each walk: a guess that held, or one of the residual."""
        process(logits_AV, batch)
        target_AV = distributions(logits_AV, batch)
        tokens_A = self._judge(target_AV, batch, walks)
        return _report(logits_AV, target_AV, tokens_A, batch)

    def _judge(self, target_AV: Tensor, batch: SamplingBatch, walks: Sequence[Walk]) -> Tensor:
        residual_AV = target_AV.clone()
        tokens_A = torch.full((len(walks),), -1, dtype=torch.int64, device=target_AV.device)
        candidates = [walk.candidates for walk in walks]
        rows = [row for row, guesses in enumerate(candidates) if guesses]
        turn = 0
        while rows:
            guesses = [candidates[row][turn] for row in rows]
            drafts = [(walks[row], guess) for row, guess in zip(rows, guesses, strict=True)]
            uniform_C = rng.derive(batch.uniform_R[rows], _FIRST_JUDGING_STREAM + turn)
            guess_C, draft_CV = self._guesses(drafts, target_AV)
            held_C = judge(residual_AV, rows, guess_C, draft_CV, uniform_C)
            tokens_A[rows] = torch.where(held_C, guess_C, tokens_A[rows])
            turn += 1
            rows = [
                row
                for row, held in zip(rows, held_C.tolist(), strict=True)
                if not held and turn < len(candidates[row])
            ]
        drawn_A = inverse_transform(residual_AV, batch.uniform_R)
        return torch.where(tokens_A < 0, drawn_A, tokens_A)

    def _guesses(
        self, drafts: Sequence[tuple[Walk, int]], like_AV: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the guessed tokens, [C], and what each was drawn from, [C, V]."""
        tokens = [walk.draft.tokens[guess] for walk, guess in drafts if walk.draft is not None]
        tokens_C = torch.tensor(tokens, device=like_AV.device)
        draft_CV = torch.zeros(
            (len(tokens), like_AV.shape[1]), dtype=like_AV.dtype, device=like_AV.device
        )
        drawn_from = [self._probabilities(walk.id) for walk, _ in drafts]
        certain = [row for row, probs_MV in enumerate(drawn_from) if probs_MV is None]
        draft_CV[certain, tokens_C[certain]] = 1.0
        drawn = {
            row: probs_MV[guess]
            for row, ((_, guess), probs_MV) in enumerate(zip(drafts, drawn_from, strict=True))
            if probs_MV is not None
        }
        if drawn:
            draft_CV[list(drawn)] = torch.stack(list(drawn.values())).to(draft_CV)
        return tokens_C, draft_CV


def judge(
    residual_AV: Tensor,
    rows: Sequence[int],
    guess_C: Tensor,
    draft_CV: Tensor,
    uniform_C: np.ndarray,
) -> Tensor:
    """Return which guesses hold, [C]; the residuals of those that do not are updated in place."""
    residual_CV = residual_AV[rows]
    target_C1 = residual_CV.gather(1, guess_C[:, None])
    drawn_C1 = draft_CV.gather(1, guess_C[:, None])
    uniform_C1 = torch.from_numpy(uniform_C).to(residual_AV.device)[:, None]
    held_C1 = uniform_C1 * drawn_C1 < target_C1
    left_CV = (residual_CV - draft_CV).clamp_(min=0.0)
    total_C1 = left_CV.sum(dim=1, keepdim=True)
    # Nothing is left where both are equal up to rounding; then the target itself is as good.
    left_CV = torch.where(total_C1 > 0, left_CV / total_C1, residual_CV)
    residual_AV[rows] = torch.where(held_C1, residual_CV, left_CV)
    return held_C1[:, 0]


def process(logits_RV: Tensor, batch: SamplingBatch) -> None:
    """Apply in place what forbids and re-weighs tokens: grammar, bans, penalties, biases."""
    pipeline.apply_bans(logits_RV, batch)
    if batch.penalties is not None:
        pipeline.apply_penalties(logits_RV, batch.penalties)
    pipeline.apply_biases(logits_RV, batch)


def distributions(processed_RV: Tensor, batch: SamplingBatch) -> Tensor:
    """Return the probabilities each row draws from, float64; one token's is one if greedy."""
    probs_RV = torch.zeros_like(processed_RV, dtype=torch.float64)
    greedy_R = batch.temperature_R == 0.0
    rows = np.flatnonzero(greedy_R)
    if len(rows):
        best_R1 = processed_RV[rows].argmax(dim=1, keepdim=True)
        probs_RV[rows] = probs_RV[rows].scatter_(1, best_R1, 1.0)
    rows = np.flatnonzero(~greedy_R)
    if len(rows):
        shaped_RV = pipeline.shape(processed_RV[rows], batch.select(rows))
        probs_RV[rows] = shaped_RV.double().softmax(dim=1)
    return probs_RV


def inverse_transform(probs_RV: Tensor, uniform_R: np.ndarray) -> Tensor:
    """Draw one token per row, [R]."""
    cumulative_RV = probs_RV.cumsum(dim=1)
    total_R1 = cumulative_RV[:, -1:]
    target_R1 = torch.from_numpy(uniform_R).to(probs_RV.device)[:, None] * total_R1
    # Rounding up to the total itself would step past the last token that has any mass.
    target_R1 = torch.minimum(target_R1, torch.nextafter(total_R1, torch.zeros_like(total_R1)))
    tokens_R1 = torch.searchsorted(cumulative_RV, target_R1, right=True)
    return tokens_R1.clamp_(max=probs_RV.shape[1] - 1)[:, 0]


def _report(
    processed_AV: Tensor, target_AV: Tensor, tokens_A: Tensor, batch: SamplingBatch
) -> pipeline.Draws:
    """Return log-probabilities as ``pipeline.sample`` gives them."""
    truncated_A = (batch.temperature_R > 0.0) & batch.truncated_R
    scale_A = torch.from_numpy(batch.scale_R).to(processed_AV.device)
    logprobs_A = row_log_probs(processed_AV, tokens_A, scale_A)
    target_A = target_AV.gather(1, tokens_A[:, None])[:, 0].log().to(logprobs_A.dtype)
    truncated = torch.from_numpy(truncated_A).to(processed_AV.device)
    logprobs_A = torch.where(truncated, target_A, logprobs_A)
    if not batch.num_top_R.any():
        return pipeline.Draws(tokens_A, logprobs_A)
    all_AV = (processed_AV * scale_A[:, None]).log_softmax(dim=1)
    all_AV = torch.where(truncated[:, None], target_AV.log().to(all_AV.dtype), all_AV)
    return pipeline.Draws(tokens_A, logprobs_A, ((np.arange(len(tokens_A)), all_AV),))
