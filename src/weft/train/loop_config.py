"""The settings every training run shares, and its budget of steps or minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from weft.core.errors import ConfigError, ResourceError
from weft.train.optim import OptimizerConfig
from weft.train.precision import Precision
from weft.train.schedule import ScheduleConfig

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class LoopConfig:
    """How a model is trained, whatever it is trained on.

    Attributes:
        steps: Stop after this many optimizer steps.
        minutes: Stop after this much wall-clock time, earlier sessions of the run included. With
            steps too, whichever comes first.
        sequence_length: Longest piece of a document in tokens.
        tokens_per_step: Tokens between two updates of the weights.
        micro_batch_tokens: Tokens computed at once; none means tokens_per_step. Gradients of the
            micro-batches of a step are added up.
        max_grad_norm: Gradients are scaled down to this global norm; none never clips.
        precision: Type of the matmuls: bf16, fp16 (with loss scaling), fp32, or auto, which
            measures one real step and takes bf16 only if it is faster and agrees with fp32.
        seed: Decides initial weights and the order of the data.
        deterministic: Refuse operations whose result varies from run to run. A resumed run then
            is bit-identical to an uninterrupted one (with a budget in steps).
        num_threads: CPU threads of torch; none leaves them as they are.
        device: Where the model is trained: cpu, cuda, or auto (cuda where there is one).
        compile: Compile the blocks with torch.compile; takes a minute or more to begin.
        ema_decay: Keep an exponential average of the weights with this decay and return it in
            place of the last weights; none keeps no average.
        checkpoint_interval_s: Seconds between checkpoints; none writes them only by steps and at
            the end.
        checkpoint_interval_steps: Steps between checkpoints; none does not count steps.
        keep_checkpoints: How many checkpoints to keep.
        log_interval_s: Seconds between two events with metrics.
        sample_interval_s: Seconds between two samples while training; none draws none.
        eval_interval_s: Seconds between two evaluations while training; none evaluates at the end.
        optimizer: The update rule.
        schedule: The learning rate over the run.
    """

    steps: int | None = None
    minutes: float | None = None
    sequence_length: int = 256
    tokens_per_step: int = 8192
    micro_batch_tokens: int | None = None
    max_grad_norm: float | None = 1.0
    precision: Precision = "auto"
    seed: int = 0
    deterministic: bool = False
    num_threads: int | None = None
    device: Device = "auto"
    compile: bool = False
    ema_decay: float | None = None
    checkpoint_interval_s: float | None = 60.0
    checkpoint_interval_steps: int | None = None
    keep_checkpoints: int = 2
    log_interval_s: float = 1.0
    sample_interval_s: float | None = 30.0
    eval_interval_s: float | None = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        positive = (
            "steps", "minutes", "sequence_length", "tokens_per_step", "micro_batch_tokens",
            "max_grad_norm", "num_threads", "checkpoint_interval_s", "checkpoint_interval_steps",
            "keep_checkpoints",
        )  # fmt: skip
        require_positive(self, positive)
        if self.ema_decay is not None and not 0.0 < self.ema_decay < 1.0:
            raise ConfigError(f"ema_decay is {self.ema_decay}; it must be between 0 and 1")
        _multiple(self, "micro_batch_tokens", self.tokens_per_micro_batch, "sequence_length")
        _multiple(self, "tokens_per_step", self.tokens_per_step, "tokens_per_micro_batch")

    @property
    def tokens_per_micro_batch(self) -> int:
        return self.micro_batch_tokens or self.tokens_per_step

    @property
    def num_micro_batches(self) -> int:
        """How many micro-batches make a step."""
        return self.tokens_per_step // self.tokens_per_micro_batch

    @property
    def budget(self) -> Budget:
        """The end of the run.

        Raises:
            ConfigError: neither steps nor minutes are given.
        """
        return Budget.of(self.steps, self.minutes)


def resolve_device(device: Device) -> str:
    """Return "cpu" or "cuda".

    Raises:
        ResourceError: cuda is asked for and torch sees no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ResourceError("torch sees no CUDA device here", fix="use --device cpu")
    return device


@dataclass(frozen=True)
class Budget:
    """When to stop: after a number of steps, of seconds, or whichever comes first."""

    steps: int | None
    seconds: float | None

    @classmethod
    def of(cls, steps: int | None, minutes: float | None) -> Budget:
        """Return the budget of a configuration.

        Raises:
            ConfigError: neither steps nor minutes are given.
        """
        if steps is None and minutes is None:
            raise ConfigError(
                "the run has no end: neither steps nor minutes are given",
                fix="set steps=N or minutes=M",
            )
        return cls(steps, None if minutes is None else minutes * 60)

    def progress(self, steps_done: int, elapsed_s: float) -> float:
        """Return the share of the budget that is used; the run ends at 1."""
        by_steps = 0.0 if self.steps is None else steps_done / self.steps
        by_time = 0.0 if self.seconds is None else elapsed_s / self.seconds
        return max(by_steps, by_time)


def require_positive(config: object, names: Sequence[str]) -> None:
    """Refuse settings that are given and not above 0.

    Raises:
        ConfigError: the first such setting.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ConfigError(f"{name} is {value}; it must be above 0", fix=f"set {name}")


def _multiple(config: LoopConfig, name: str, value: int, unit: str) -> None:
    size = getattr(config, unit)
    if value % size:
        raise ConfigError(
            f"{name} {value} is not a multiple of {unit.removeprefix('tokens_per_')} {size}",
            fix=f"use {max(value // size, 1) * size}",
        )
