"""Supervised fine-tuning on conversations: only masked-in tokens are learnt."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from weft.checkpoint.hf import save_model
from weft.core.errors import ConfigError
from weft.core.events import Events
from weft.data.examples import ExampleLoader, MaskedExample
from weft.models.decoder import Decoder
from weft.spec import HardwareSpec
from weft.text.tokenizer import Tokenizer
from weft.train.loop_config import LoopConfig
from weft.train.objective import NextTokenObjective
from weft.train.optim import OptimizerConfig
from weft.train.pretrain import OnSample, sample_hook
from weft.train.schedule import ScheduleConfig
from weft.train.trainer import Hook, Trainer, TrainResult


@dataclass(frozen=True)
class SFTConfig(LoopConfig):
    """Fine-tune a model on instruction data.

    Attributes:
        epochs: Passes over the examples; ends the run together with steps and minutes, whichever
            comes first. None leaves the end to those.
        packing: best_fit places several examples into one sequence (they never see each other);
            none gives each its own.
        optimizer: The update rule; gentler than in pre-training.
        schedule: The learning rate over the run.
    """

    epochs: float | None = 3.0
    packing: Literal["best_fit", "none"] = "best_fit"
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=1e-3, weight_decay=0.0)
    )
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(kind="linear", warmup_steps=10)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs is not None and self.epochs <= 0:
            raise ConfigError(f"epochs is {self.epochs}; it must be above 0")


def run_sft(
    config: SFTConfig,
    model: Decoder,
    examples: Sequence[MaskedExample],
    *,
    folder: Path,
    events: Events,
    tokenizer: Tokenizer | None = None,
    on_sample: OnSample | None = None,
    hardware: HardwareSpec | None = None,
    hooks: Sequence[Hook] = (),
) -> TrainResult:
    """Fine-tune ``model`` in place and write ``folder/model``; continues what is there.

    ``examples`` are rendered conversations with loss masks (``weft.text.render.Renderer``);
    ``hooks`` are called besides the sampler, and may end the run early.

    Raises:
        Interrupted: Ctrl-C; the same call continues.
        DataError: no example has a token to learn.
    """
    loader = ExampleLoader(
        examples,
        tokens_per_batch=config.tokens_per_micro_batch,
        seed=config.seed,
        packing=config.packing,
        sequence_length=config.sequence_length,
    )
    events.emit(
        "note",
        text=f"{loader.num_examples} examples in {loader.num_sequences} sequences; "
        f"{loader.num_truncated} cut, {loader.num_dropped} without a target left out",
    )
    all_hooks = list(hooks)
    if on_sample is not None and config.sample_interval_s is not None:
        all_hooks.append(sample_hook(on_sample, config.sample_interval_s))
    trainer = Trainer(
        model,
        NextTokenObjective(),
        loader,
        with_epochs(config, loader.batches_per_epoch),
        folder=folder / "checkpoints",
        title="sft",
        hardware=hardware,
        hooks=all_hooks,
    )
    result = trainer.run(events)
    save_model(model, folder / "model", tokenizer=tokenizer)
    return result


def with_epochs(config: SFTConfig, micro_batches_per_epoch: int) -> SFTConfig:
    """Return the configuration with its epochs turned into a limit on steps."""
    if config.epochs is None:
        return config
    steps = math.ceil(config.epochs * micro_batches_per_epoch / config.num_micro_batches)
    return dataclasses.replace(config, steps=min(steps, config.steps or steps))
