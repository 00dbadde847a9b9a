"""Held-out loss of a language model."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from weft.data.batch import Batch
from weft.models.decoder import Decoder
from weft.train.objective import NextTokenObjective
from weft.train.precision import autocast


@torch.no_grad()
def heldout_metrics(
    model: Decoder,
    batches: Iterable[Batch],
    *,
    bytes_per_token: float | None = None,
    precision: str = "fp32",
) -> dict[str, float]:
    """Return the mean loss (nats per token), the perplexity exp(loss) and bits per byte.

    Bits per byte, ``loss / ln 2 / bytes_per_token``, compares models of different vocabularies.
    """
    objective, loss_sum, count = NextTokenObjective(), 0.0, 0
    for batch in batches:
        with autocast(precision, model.device.type):
            result = objective(model, batch)
        loss_sum += float(result.loss_sum)
        count += int(result.count)
    loss = loss_sum / max(count, 1)
    metrics = {"loss": loss, "perplexity": perplexity(loss), "num_tokens": float(count)}
    if bytes_per_token is not None:
        metrics["bits_per_byte"] = bits_per_byte(loss, bytes_per_token)
    return metrics


def perplexity(loss: float) -> float:
    """Return exp of a mean negative log-likelihood; infinity where it overflows."""
    return math.exp(loss) if loss < 700 else math.inf


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """Return a mean loss in nats per token as bits per byte of text."""
    return loss / math.log(2) / bytes_per_token
