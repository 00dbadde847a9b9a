"""Training of drafting heads on a model that stays as it is.

A head learns the model's own distributions, not the text: it minimises the cross-entropy to what
the model says at the position it guesses (distillation), so any text of the kind the model is used
for will do, best the model's own answers.

T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weft.core.errors import ConfigError
from weft.data.batch import Batch
from weft.models import heads
from weft.models.block_draft import BlockHead
from weft.models.decoder import Decoder
from weft.models.eagle import EagleHead
from weft.models.medusa import MedusaHeads
from weft.models.mtp import shift
from weft.nn.context import StepContext
from weft.train.objective import LossSum, to_device

Head = BlockHead | EagleHead | MedusaHeads

# Weight of each Medusa head relative to the one before it (arXiv:2401.10774, section 2.2.1).
_MEDUSA_DECAY = 0.8
_BLOCKS_PER_DOCUMENT = 4


@dataclass(frozen=True)
class HeadTraining:
    """How a head is trained.

    Attributes:
        learning_rate: At the beginning; it falls to zero along a line.
        weight_decay: Of AdamW.
        max_norm: Gradients are clipped to this norm.
        run_ahead: How often an EAGLE head reads its own answers in training, as it will when it
            drafts ("training-time test", arXiv:2503.01840, section 3.2); how many places a block
            head fills.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    max_norm: float = 1.0
    run_ahead: int = 3

    def __post_init__(self) -> None:
        if self.run_ahead < 1:
            raise ConfigError(f"run_ahead is {self.run_ahead}", fix="it must be at least 1")


def train_head(
    model: Decoder,
    head: Head,
    batches: Iterable[Batch],
    *,
    num_steps: int,
    config: HeadTraining | None = None,
) -> list[float]:
    """Train a head in place; return the loss of every step in nats per guess.

    Args:
        model: Not changed.
        head: Of the model's width, on its device.
        batches: At least ``num_steps``.
        num_steps: Updates.
        config: How.
    """
    config = config or HeadTraining()
    parameters = [p for p in head.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / num_steps)
    head.train()
    losses = []
    with frozen(model):
        for _, batch in zip(range(num_steps), batches, strict=False):
            loss_sum, count, *_ = head_loss(model, head, batch, run_ahead=config.run_ahead)
            loss = loss_sum / count
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, config.max_norm)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    head.eval()
    return losses


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Collect no gradients for a model, whose embedding and output projection the head uses."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def head_loss(model: Decoder, head: Head, batch: Batch, *, run_ahead: int = 3) -> LossSum:
    """Return the summed cross-entropy to the model's own distributions, and how many there are."""
    tokens_T = to_device(batch.tokens_T, model.device)
    ctx = StepContext.packed(batch.lengths, device=model.device)
    with torch.no_grad():
        hidden_TD = model(tokens_T, ctx)
    if isinstance(head, MedusaHeads):
        return _medusa_loss(model, head, hidden_TD, batch.lengths)
    if isinstance(head, BlockHead):
        return _block_loss(model, head, tokens_T, hidden_TD, batch.lengths, run_ahead)
    return _eagle_loss(model, head, tokens_T, hidden_TD, batch.lengths, run_ahead)


def _medusa_loss(
    model: Decoder, head: MedusaHeads, hidden_TD: Tensor, lengths: tuple[int, ...]
) -> LossSum:
    total, count = hidden_TD.new_zeros(()), 0.0
    for steps, ahead_TD in enumerate(head(hidden_TD), start=1):
        targets_T = _row_ahead(lengths, steps, hidden_TD.device)
        weight = _MEDUSA_DECAY ** (steps - 1)
        loss_sum, num_rows = _distance(model, ahead_TD, hidden_TD, targets_T)
        total, count = total + weight * loss_sum, count + weight * num_rows
    return LossSum(total, count)


def _eagle_loss(
    model: Decoder,
    head: EagleHead,
    tokens_T: Tensor,
    hidden_TD: Tensor,
    lengths: tuple[int, ...],
    run_ahead: int,
) -> LossSum:
    """Sum over passes, each of which reads the answers of the pass before one position later."""
    embedded_TD = model.embed_tokens(
        shift(tokens_T, lengths, 1, fill=0), StepContext.packed(lengths, device=model.device)
    ).detach()
    targets_T = _row_ahead(lengths, 1, hidden_TD.device)
    before_T, known_TD = _row_before(lengths, hidden_TD.device), hidden_TD
    total, count = hidden_TD.new_zeros(()), 0.0
    for _ in range(run_ahead):
        ctx = StepContext.packed(lengths, device=model.device)
        answer_TD = head(known_TD, embedded_TD, ctx)
        loss_sum, num_rows = _distance(model, answer_TD, hidden_TD, targets_T)
        total, count = total + loss_sum, count + num_rows
        known_TD = torch.where(before_T[:, None] < 0, hidden_TD, answer_TD[before_T])
    return LossSum(total, count)


def _block_loss(
    model: Decoder,
    head: BlockHead,
    tokens_T: Tensor,
    hidden_TD: Tensor,
    lengths: tuple[int, ...],
    num_places: int,
) -> LossSum:
    """Sum over blocks, several behind random tokens of each document long enough for one."""
    embedded_TD = model.embed_tokens(tokens_T, StepContext.packed(lengths, device=model.device))
    injected_TD = head.inject(hidden_TD)
    masks_MD = head.mask.expand(num_places - 1, -1)
    rows, sizes, targets = [], [], []
    starts = torch.tensor([0, *lengths[:-1]]).cumsum(0).tolist()
    for start, length in zip(starts, lengths, strict=True):
        for _ in range(_BLOCKS_PER_DOCUMENT if length > num_places else 0):
            place = start + int(torch.randint(1, length - num_places + 1, ()))
            rows += [injected_TD[start:place], embedded_TD[place : place + 1], masks_MD]
            sizes.append(place - start + num_places)
            targets += [*[-1] * (place - start), *range(place, place + num_places)]
    if not rows:
        return LossSum(0.0 * injected_TD.sum(), 0)
    answer_TD = head(torch.cat(rows), StepContext.packed(sizes, device=model.device))
    targets_T = torch.tensor(targets, device=model.device)
    bias = head.bias(tokens_T[targets_T.clamp(min=0)])
    return LossSum(*_distance(model, answer_TD, hidden_TD, targets_T, bias))


def _distance(
    model: Decoder,
    answer_TD: Tensor,
    hidden_TD: Tensor,
    targets_T: Tensor,
    bias_TV: Tensor | None = None,
) -> tuple[Tensor, int]:
    """Return the cross-entropy of answers to what the model says in other rows, and how many."""
    rows = torch.nonzero(targets_T >= 0)[:, 0]
    total = answer_TD.new_zeros((), dtype=torch.float32)
    for part in rows.split(heads.CHUNK_SIZE):
        with torch.no_grad():
            wanted_TV = heads.logits(model, hidden_TD[targets_T[part]]).softmax(dim=-1)
        scores_TV = heads.logits(model, answer_TD[part])
        if bias_TV is not None:
            scores_TV = scores_TV + bias_TV[part]
        logprobs_TV = scores_TV.log_softmax(dim=-1)
        total = total - (wanted_TV * logprobs_TV).sum()
    return total, len(rows)


def _row_ahead(lengths: tuple[int, ...], steps: int, device: torch.device) -> Tensor:
    """Return the row so many places ahead in the same document, -1 beyond its end."""
    return shift(torch.arange(sum(lengths), device=device), lengths, steps, fill=-1)


def _row_before(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the row before in the same document, -1 at its beginning."""
    rows_T = torch.arange(sum(lengths), device=device) - 1
    starts = torch.tensor([0, *lengths[:-1]], device=device).cumsum(0)
    rows_T[starts] = -1
    return rows_T
