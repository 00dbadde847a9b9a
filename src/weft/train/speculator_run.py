"""A run that trains a drafting head: configuration in, folder of the head out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import nn

from weft.checkpoint.speculator import save_speculator
from weft.core.errors import ConfigError, Interrupted
from weft.core.events import Events
from weft.data.batch import Batch
from weft.models.block_draft import BlockHead
from weft.models.decoder import Decoder
from weft.models.eagle import EagleHead
from weft.models.medusa import MedusaHeads
from weft.spec import MLPSpec, ModelSpec, MoESpec
from weft.train.loop_config import LoopConfig, require_positive
from weft.train.objective import LossSum
from weft.train.optim import OptimizerConfig
from weft.train.schedule import ScheduleConfig
from weft.train.speculators import Head, frozen, head_loss
from weft.train.trainer import Trainer, TrainResult

HeadKind = Literal["eagle", "medusa", "block"]


@dataclass(frozen=True)
class SpeculatorConfig(LoopConfig):
    """Train a head that drafts for a model.

    Attributes:
        kind: eagle guesses one token after another, medusa several at once without a cache, block
            several at once from all that is known.
        num_guesses: Most guesses behind one another: Medusa's heads, the places a block head fills,
            how often an EAGLE head reads its own answers in training.
        ffn_dim: Inner width of the feed-forward part of eagle and block; none takes the model's.
        num_layers: Layers of a block head.
        rank: Of a block head's bigram bias; 0 has none.
        optimizer: The update rule.
        schedule: The learning rate over the run.
    """

    kind: HeadKind = "eagle"
    num_guesses: int = 4
    ffn_dim: int | None = None
    num_layers: int = 1
    rank: int = 32
    sample_interval_s: float | None = None
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=3e-3, matrix_lr=3e-2, weight_decay=0.0)
    )
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(kind="linear", warmup_steps=20)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, ("num_guesses", "ffn_dim", "num_layers"))
        if self.rank < 0:
            raise ConfigError(f"rank is {self.rank}; it must be at least 0", fix="set rank=0")


class BatchSource(Protocol):
    """Batches as a function of their index, such as ``weft.data.loader.Loader``."""

    def batch(self, index: int) -> Batch: ...


def build_head(config: SpeculatorConfig, model: Decoder) -> Head:
    """Return an untrained head for a model, on its device and of its element type.

    Raises:
        UnsupportedError: eagle and block, where no layer of the model has plain attention.
    """
    where: dict[str, Any] = {"device": model.device, "dtype": model.dtype}
    if config.kind == "medusa":
        return MedusaHeads(model.spec.dim, config.num_guesses, **where)
    sizes = {"ffn_dim": config.ffn_dim or ffn_dim_of(model.spec), "seed": config.seed}
    if config.kind == "eagle":
        return EagleHead(model.spec, **sizes, **where)
    return BlockHead(model.spec, num_layers=config.num_layers, rank=config.rank, **sizes, **where)


def ffn_dim_of(spec: ModelSpec) -> int:
    """Return the inner width of a model's last feed-forward part; of experts, of those active."""
    for layer in reversed(spec.layers):
        if isinstance(layer.ffn, MLPSpec):
            return layer.ffn.hidden_dim
        if isinstance(layer.ffn, MoESpec):
            return layer.ffn.expert.hidden_dim * layer.ffn.top_k
    return 4 * spec.dim


def run_speculator(
    config: SpeculatorConfig,
    model: Decoder,
    source: BatchSource,
    *,
    folder: Path,
    events: Events,
) -> tuple[Head, TrainResult]:
    """Train a head to the end of the budget and write ``folder/head``; continues what is there.

    An interrupted run leaves the head as it is by then, which drafts already.

    Args:
        config: Everything that decides the result.
        model: Not changed.
        source: What to learn from; labels are not used.
        folder: Run folder; training state goes to ``folder/checkpoints``.
        events: Where metrics go.

    Raises:
        ConfigError: sequences that are longer than the model's context.
        Interrupted: Ctrl-C; the same call continues.
    """
    if config.sequence_length > model.spec.context_length:
        raise ConfigError(
            f"sequence_length is {config.sequence_length}, the model's context is "
            f"{model.spec.context_length}",
            fix=f"set sequence_length to at most {model.spec.context_length}",
        )
    head = build_head(config, model)
    num_parameters = sum(parameter.numel() for parameter in head.parameters())
    events.emit("note", text=f"a head of kind {config.kind}: {num_parameters} parameters")
    trainer = Trainer(
        cast(Decoder, _Learner(head, model)),
        _Objective(model, config.num_guesses),
        source,
        config,
        folder=folder / "checkpoints",
        title=config.kind,
    )
    try:
        with frozen(model):
            result = trainer.run(events)
    except Interrupted as error:
        save_speculator(head, folder / "head")
        message = f"{error.message}; {folder / 'head'} drafts as well as it has learnt by then"
        raise Interrupted(message, fix=error.fix) from error
    save_speculator(head, folder / "head")
    return head.eval(), result


class _Learner(nn.Module):
    """A head as the trainer sees it: with the specification and the device of its model."""

    def __init__(self, head: Head, model: Decoder) -> None:
        super().__init__()
        self.head = head
        self.spec = model.spec
        self.device: torch.device = model.device


class _Objective:
    """Distance to the model's own distributions."""

    def __init__(self, model: Decoder, run_ahead: int) -> None:
        self._model = model
        self._run_ahead = run_ahead

    def __call__(self, model: _Learner, batch: Batch) -> LossSum:
        """Return the summed cross-entropy of the head's guesses."""
        return head_loss(self._model, cast(Head, model.head), batch, run_ahead=self._run_ahead)
