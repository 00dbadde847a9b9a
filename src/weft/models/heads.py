"""What is done with hidden states. T tokens, D model width, V vocabulary.

Training, RL and sampling all go through these three functions, so their numbers agree.
"""

from __future__ import annotations

from torch import Tensor

from weft.models.decoder import Decoder
from weft.ops import linear_cross_entropy, linear_log_probs, soft_cap

# Rows of logits held at once; 512 x 32k x 4 bytes = 64 MiB.
CHUNK_SIZE = 512


def logits(model: Decoder, hidden_TD: Tensor) -> Tensor:
    """Return the scores of every next token, [T, V], float32."""
    return soft_cap(model.unembed(hidden_TD).float(), model.spec.logit_softcap)


def cross_entropy_sum(
    model: Decoder, hidden_TD: Tensor, labels_T: Tensor, *, chunk_size: int = CHUNK_SIZE
) -> tuple[Tensor, Tensor]:
    """Return (summed negative log-likelihood in nats, number of labels that count).

    Labels of -100 do not count. The sum is never divided here: only the trainer knows the
    global number of tokens.
    """
    return linear_cross_entropy(
        hidden_TD,
        model.head_weight,
        labels_T,
        chunk_size=chunk_size,
        softcap=model.spec.logit_softcap,
    )


def log_probs(
    model: Decoder,
    hidden_TD: Tensor,
    targets_T: Tensor,
    *,
    temperature: float = 1.0,
    chunk_size: int = CHUNK_SIZE,
) -> Tensor:
    """Return the log-probability of each target under softmax(logits / temperature), [T]."""
    return linear_log_probs(
        hidden_TD,
        model.head_weight,
        targets_T,
        temperature=temperature,
        chunk_size=chunk_size,
        softcap=model.spec.logit_softcap,
    )
