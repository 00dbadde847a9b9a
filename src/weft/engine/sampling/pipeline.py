"""The sampling chain over rows: ban, penalties, bias, temperature, truncation, draw.

Truncation is top-k, top-p and min-p, then typical sampling of what they leave.

Truncation is a threshold per row: a token stays when its logit reaches the threshold, so tokens
tied with the last kept one stay too, and the kept set depends on the row's values alone, never on
the order a sort happened to give ties. The draw walks the kept tokens in id order (inverse
transform with the row's own uniform). Both make a draw independent of the rest of the batch.

Temperature works on logits shifted by their maximum, so no temperature overflows.

Shapes: R rows that sample, V vocabulary, C candidates, E sparse entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from weft.engine.sampling.batch import MIN_TEMPERATURE, Penalties, SamplingBatch
from weft.ops import row_log_probs

# Nucleus thresholds are first sought among this many candidates; only rows whose nucleus is
# wider sort their whole vocabulary.
NUM_CANDIDATES = 128

_NEGATIVE_INFINITY = float("-inf")


@dataclass(frozen=True)
class Draws:
    """What was drawn in one step.

    Attributes:
        tokens_R: Drawn tokens, int64.
        logprobs_R: Their log-probability under the distribution they were drawn from.
        shaped: (rows, values) pairs: rows of the batch and their final unnormalised
            log-probabilities [len(rows), V], with the log of the normaliser already subtracted;
            only kept when a row reports alternatives.
    """

    tokens_R: Tensor
    logprobs_R: Tensor
    shaped: tuple[tuple[np.ndarray, Tensor], ...] = ()


# Tokens, their log-probabilities, and all log-probabilities if a row wants alternatives.
Drawn = tuple[Tensor, Tensor, Tensor | None]


def sample(logits_RV: Tensor, batch: SamplingBatch) -> Draws:
    """Draw one token per row; ``logits_RV`` (float32) is overwritten.

    A greedy row takes the first largest logit and its log-probability is that of the unscaled
    logits after bans and penalties; a drawing row's is that of the truncated, renormalised
    distribution at its temperature.
    """
    apply_bans(logits_RV, batch)
    if batch.penalties is not None:
        apply_penalties(logits_RV, batch.penalties)
    apply_biases(logits_RV, batch)
    greedy_R = batch.temperature_R == 0.0
    truncated_R = ~greedy_R & batch.truncated_R
    kinds = (
        (greedy_R, _greedy),
        (~greedy_R & ~truncated_R, _draw),
        (truncated_R, _draw_truncated),
    )
    used = [(np.flatnonzero(rows_R), draw) for rows_R, draw in kinds if rows_R.any()]
    if len(used) == 1:
        rows, draw = used[0]
        return _with_shape(*draw(logits_RV, batch), batch, rows)
    return _mixed(logits_RV, batch, used)


def apply_bans(logits_RV: Tensor, batch: SamplingBatch) -> None:
    """Set banned (row, token) pairs, and all but the allowed ones, to minus infinity, in place."""
    if batch.masks is not None:
        apply_masks(logits_RV, *batch.masks)
    if batch.allowed is not None:
        rows_E, tokens_E = (_to(array, logits_RV) for array in batch.allowed)
        kept_E = logits_RV[rows_E, tokens_E]
        logits_RV[rows_E] = _NEGATIVE_INFINITY
        logits_RV[rows_E, tokens_E] = kept_E
    if batch.banned is not None:
        rows_E, tokens_E = (_to(array, logits_RV) for array in batch.banned)
        logits_RV[rows_E, tokens_E] = _NEGATIVE_INFINITY


def apply_masks(logits_RV: Tensor, rows_G: np.ndarray, bits_GW: np.ndarray) -> None:
    """Set tokens whose bit is 0 to minus infinity, in place; rows are in ascending order."""
    bits_t = _to(bits_GW, logits_RV)
    places_8 = torch.arange(8, dtype=torch.uint8, device=logits_RV.device)
    allowed_GV = (bits_t[:, :, None] >> places_8 & 1).flatten(1)[:, : logits_RV.shape[-1]]
    if len(rows_G) == len(logits_RV):
        logits_RV.masked_fill_(allowed_GV == 0, _NEGATIVE_INFINITY)
        return
    rows_t = _to(rows_G, logits_RV)
    logits_RV[rows_t] = logits_RV[rows_t].masked_fill_(allowed_GV == 0, _NEGATIVE_INFINITY)


def apply_penalties(logits_RV: Tensor, penalties: Penalties) -> None:
    """Apply repetition (arXiv:1909.05858), then frequency and presence (OpenAI), in place."""
    rows, counts_E = penalties.rows_E, penalties.counts_E
    rows_E, tokens_E = _to(rows, logits_RV), _to(penalties.tokens_E, logits_RV)
    repetition_E = _to(penalties.repetition_R[rows], logits_RV)
    subtracted = penalties.frequency_R[rows] * counts_E + penalties.presence_R[rows] * (
        counts_E > 0
    )
    values_E = logits_RV[rows_E, tokens_E]
    values_E = torch.where(values_E > 0, values_E / repetition_E, values_E * repetition_E)
    logits_RV[rows_E, tokens_E] = values_E - _to(subtracted.astype(np.float32), logits_RV)


def apply_biases(logits_RV: Tensor, batch: SamplingBatch) -> None:
    """Add the values that requests gave to tokens, in place."""
    if batch.biases is not None:
        rows_E, tokens_E, values_E = (_to(array, logits_RV) for array in batch.biases)
        logits_RV[rows_E, tokens_E] += values_E


def shape(logits_RV: Tensor, batch: SamplingBatch) -> Tensor:
    """Apply temperature and truncation in place; the maximum of each row becomes 0."""
    scaled_RV = logits_RV.sub_(logits_RV.amax(dim=-1, keepdim=True))
    _apply_temperature(scaled_RV, batch)
    if not batch.truncated_R.any():
        return scaled_RV
    threshold_R = _thresholds(scaled_RV, batch)
    scaled_RV.masked_fill_(scaled_RV < threshold_R[:, None], _NEGATIVE_INFINITY)
    rows = np.flatnonzero(batch.typical_p_R < 1.0)
    if len(rows) > 0:
        rows_t = _to(rows, scaled_RV)
        typical_p = _to(batch.typical_p_R[rows], scaled_RV)
        scaled_RV[rows_t] = _typical(scaled_RV[rows_t], typical_p)
    return scaled_RV


def _apply_temperature(shifted_RV: Tensor, batch: SamplingBatch) -> None:
    """Divide in place rows whose maximum is 0."""
    if (batch.temperature_R != 1.0).any():
        temperature_R = np.maximum(batch.temperature_R, MIN_TEMPERATURE).astype(np.float32)
        shifted_RV.div_(_to(temperature_R, shifted_RV)[:, None])


def _thresholds(scaled_RV: Tensor, batch: SamplingBatch) -> Tensor:
    """Return the smallest kept value of each row; minus infinity keeps all."""
    with np.errstate(divide="ignore"):
        threshold_R = _to(np.log(batch.min_p_R).astype(np.float32), scaled_RV)
    rows = np.flatnonzero((batch.top_k_R > 0) | (batch.top_p_R < 1.0))
    if len(rows) == 0:
        return threshold_R
    whole = len(rows) == batch.num_rows
    rows_t = _to(rows, scaled_RV)
    picked = scaled_RV if whole else scaled_RV[rows_t]
    found = _top_thresholds(picked, batch.top_k_R[rows], batch.top_p_R[rows], NUM_CANDIDATES)
    threshold_R[rows_t] = torch.maximum(threshold_R[rows_t], found)
    return threshold_R


def _top_thresholds(
    scaled_RV: Tensor, top_k_R: np.ndarray, top_p_R: np.ndarray, num_candidates: int
) -> Tensor:
    """Return each row's top-k then top-p threshold from its ``num_candidates`` largest values."""
    vocab_size = scaled_RV.shape[-1]
    top_k_R = np.where(top_k_R > 0, np.minimum(top_k_R, vocab_size), 0)
    num_candidates = min(vocab_size, max(num_candidates if (top_k_R == 0).any() else 1, *top_k_R))
    values_RC = scaled_RV.topk(num_candidates, dim=-1).values
    kth_R = values_RC.gather(1, _to(np.maximum(top_k_R - 1, 0), scaled_RV)[:, None])[:, 0]
    threshold_R = torch.where(_to(top_k_R > 0, scaled_RV), kth_R, _NEGATIVE_INFINITY)
    rows = np.flatnonzero(top_p_R < 1.0)
    if len(rows) == 0:
        return threshold_R
    rows_t = _to(rows, scaled_RV)
    top_p = _to(top_p_R[rows], scaled_RV)
    nucleus, covered = _nucleus(scaled_RV[rows_t], values_RC[rows_t], threshold_R[rows_t], top_p)
    threshold_R[rows_t] = torch.maximum(threshold_R[rows_t], nucleus)
    if num_candidates < vocab_size and not bool(covered.all()):
        wide = rows[~covered.cpu().numpy()]
        threshold_R[_to(wide, scaled_RV)] = _top_thresholds(
            scaled_RV[_to(wide, scaled_RV)], top_k_R[wide], top_p_R[wide], vocab_size
        )
    return threshold_R


def _nucleus(
    scaled_RV: Tensor, values_RC: Tensor, top_k_threshold_R: Tensor, top_p_R: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the value of the token that completes mass ``top_p`` and whether it was reached.

    The mass is that of what top-k has left (Holtzman et al. 2020, arXiv:1904.09751). Sums are in
    float64, so that their rounding cannot depend on how many threads share one row.
    """
    kept_RV = scaled_RV.exp().masked_fill_(scaled_RV < top_k_threshold_R[:, None], 0.0)
    mass_R = kept_RV.sum(dim=-1, dtype=torch.float64)
    reached_RC = values_RC.double().exp().cumsum(dim=-1) >= (top_p_R * mass_R)[:, None]
    covered_R = reached_RC[:, -1]
    index_R = torch.where(covered_R, reached_RC.int().argmax(dim=-1), values_RC.shape[1] - 1)
    return values_RC.gather(1, index_R[:, None])[:, 0], covered_R


def _typical(scaled_RV: Tensor, typical_p_R: Tensor) -> Tensor:
    """Keep the tokens whose surprise is nearest to the entropy until their mass is reached.

    Meister et al. 2023 (arXiv:2202.00666). A threshold on the distance, so ties stay together.
    """
    logprobs_RV = scaled_RV.double().log_softmax(dim=-1)
    probs_RV = logprobs_RV.exp()
    entropy_R1 = -(probs_RV * logprobs_RV).nansum(dim=-1, keepdim=True)
    distance_RV = (-logprobs_RV - entropy_R1).abs()
    order_RV = distance_RV.argsort(dim=-1, stable=True)
    mass_RV = probs_RV.gather(1, order_RV).cumsum(dim=-1)
    last_R1 = (mass_RV < typical_p_R[:, None]).sum(dim=-1, keepdim=True)
    last_R1 = last_R1.clamp_(max=scaled_RV.shape[1] - 1)
    limit_R1 = distance_RV.gather(1, order_RV.gather(1, last_R1))
    return scaled_RV.masked_fill(distance_RV > limit_R1, _NEGATIVE_INFINITY)


def _greedy(logits_RV: Tensor, batch: SamplingBatch) -> Drawn:
    """Take the first largest logit."""
    tokens_R = logits_RV.argmax(dim=-1)
    logprobs_R = row_log_probs(logits_RV, tokens_R, _to(batch.scale_R, logits_RV))
    return tokens_R, logprobs_R, _all_log_probs(logits_RV, tokens_R, logprobs_R, batch)


def _draw(logits_RV: Tensor, batch: SamplingBatch) -> Drawn:
    """Draw from the whole vocabulary; the log-probability is the very one that training computes.

    Policy gradients weigh a token by the ratio of the two, which must not hold their roundings.
    """
    # Not in place: the log-probability needs the logits as they are.
    shaped_RV = logits_RV - logits_RV.amax(dim=-1, keepdim=True)
    _apply_temperature(shaped_RV, batch)
    weights_RV = shaped_RV.exp() if _reports(batch) else shaped_RV.exp_()
    tokens_R = _inverse_transform(weights_RV, batch)[0][:, 0]
    logprobs_R = row_log_probs(logits_RV, tokens_R, _to(batch.scale_R, logits_RV))
    return tokens_R, logprobs_R, _all_log_probs(shaped_RV, tokens_R, logprobs_R, batch)


def _all_log_probs(
    shaped_RV: Tensor, tokens_R: Tensor, logprobs_R: Tensor, batch: SamplingBatch
) -> Tensor | None:
    """Return all log-probabilities if a row reports some, that of the drawn token as given."""
    if not _reports(batch):
        return None
    # The softmax kernels reduce each row alone, whatever the number of rows.
    logprobs_RV = shaped_RV.log_softmax(dim=-1)
    return logprobs_RV.add_(logprobs_R[:, None] - logprobs_RV.gather(1, tokens_R[:, None]))


def _draw_truncated(logits_RV: Tensor, batch: SamplingBatch) -> Drawn:
    """Draw from what truncation leaves."""
    shaped_RV = shape(logits_RV, batch)
    tokens_R1, total_R1 = _inverse_transform(shaped_RV.exp(), batch)
    log_total_R1 = total_R1.log()
    logprobs_R = (shaped_RV.gather(1, tokens_R1) - log_total_R1)[:, 0]
    return tokens_R1[:, 0], logprobs_R, shaped_RV.sub_(log_total_R1) if _reports(batch) else None


def _inverse_transform(weights_RV: Tensor, batch: SamplingBatch) -> tuple[Tensor, Tensor]:
    """Return drawn tokens and the sum of each row, both [R, 1]; the weights are overwritten."""
    cumulative_RV = weights_RV.cumsum_(dim=-1)
    total_R1 = cumulative_RV[:, -1:]
    uniform_R1 = _to(batch.uniform_R, weights_RV)[:, None]
    # Rounding up to the total itself would step past the last token that has any mass.
    below_R1 = torch.nextafter(total_R1, torch.zeros_like(total_R1))
    target_R1 = torch.minimum((uniform_R1 * total_R1.double()).to(total_R1.dtype), below_R1)
    tokens_R1 = torch.searchsorted(cumulative_RV, target_R1, right=True)
    # A row of NaN has no total; the runner reports it, the index only has to be a valid one.
    return tokens_R1.clamp_(max=weights_RV.shape[-1] - 1), total_R1


def _reports(batch: SamplingBatch) -> bool:
    """Return whether a row wants alternatives beside its token."""
    return bool(batch.num_top_R.any())


def _with_shape(
    tokens_R: Tensor,
    logprobs_R: Tensor,
    shaped_RV: Tensor | None,
    batch: SamplingBatch,
    rows: np.ndarray,
) -> Draws:
    return Draws(tokens_R, logprobs_R, () if shaped_RV is None else ((rows, shaped_RV),))


def _mixed(
    logits_RV: Tensor,
    batch: SamplingBatch,
    used: Sequence[tuple[np.ndarray, Callable[[Tensor, SamplingBatch], Drawn]]],
) -> Draws:
    """Sample each kind of row apart and put them back in order."""
    tokens_R = torch.empty(batch.num_rows, dtype=torch.int64, device=logits_RV.device)
    logprobs_R = torch.empty(batch.num_rows, dtype=logits_RV.dtype, device=logits_RV.device)
    shaped: tuple[tuple[np.ndarray, Tensor], ...] = ()
    for rows, draw in used:
        rows_t, part = _to(rows, logits_RV), batch.select(rows)
        draws = _with_shape(*draw(logits_RV[rows_t], part), part, rows)
        tokens_R[rows_t], logprobs_R[rows_t] = draws.tokens_R, draws.logprobs_R
        shaped += draws.shaped
    return Draws(tokens_R, logprobs_R, shaped)


def _to(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device, non_blocking=True)
