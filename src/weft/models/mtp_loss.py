"""The loss of multi-token prediction modules. T tokens, D model width."""

from __future__ import annotations

from torch import Tensor

from weft.models.decoder import Decoder
from weft.models.heads import CHUNK_SIZE, cross_entropy_sum
from weft.models.mtp import shift
from weft.nn.context import StepContext

IGNORED = -100


def mtp_cross_entropy_sums(
    model: Decoder,
    tokens_T: Tensor,
    hidden_TD: Tensor,
    labels_T: Tensor,
    ctx: StepContext,
    *,
    chunk_size: int = CHUNK_SIZE,
) -> list[tuple[Tensor, Tensor]]:
    """Return of each module, nearest first, (summed loss in nats, number of labels that count).

    DeepSeek-V3 (arXiv:2412.19437, equations 24 and 25) divides each sum by the main loss's count
    and adds a weight times their mean. Tokens at a document's end that have no token so far ahead
    do not count; attention is causal: what stands in for them reaches no other.

    Args:
        model: Built from a specification with ``num_mtp_layers``.
        tokens_T: The tokens that the model saw.
        hidden_TD: What ``model(tokens_T, ctx)`` returned.
        labels_T: The next token of each, -100 where it does not count, as for the main loss.
        ctx: The same packed context.
        chunk_size: Rows of logits held at once.
    """
    sums = []
    for steps, module in enumerate(model.mtp, start=1):
        ahead_T = shift(tokens_T, ctx.lengths, steps, fill=0)
        hidden_TD = module(hidden_TD, model.embed_tokens(ahead_T, ctx), ctx)
        targets_T = shift(labels_T, ctx.lengths, steps, fill=IGNORED)
        sums.append(cross_entropy_sum(model, hidden_TD, targets_T, chunk_size=chunk_size))
    return sums
