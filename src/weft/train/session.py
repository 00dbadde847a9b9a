"""The state of a training run: what a session continues from and what it saves."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weft.core.errors import CheckpointError
from weft.models.decoder import Decoder
from weft.train.checkpoint import CheckpointStore, TrainingCheckpoint
from weft.train.ema import WeightAverage
from weft.train.loop_config import LoopConfig
from weft.train.optim import build_optimizer
from weft.train.precision import DTYPES, LossScaler
from weft.train.rng import capture_random_state, restore_random_state

_OTHER_CONFIG = "continue with the configuration the run was started with, or use another folder"


@dataclass
class TrainState:
    """Counters of a run over all its sessions.

    Attributes:
        step: Optimizer steps done.
        elapsed_s: Seconds of training.
        num_tokens: Tokens seen.
        num_skipped: Steps left out because gradients were not finite.
        loss: Mean loss of the last report; none before the first.
        precision: What matmuls run in; settled once, so that a continued run computes alike.
    """

    step: int = 0
    elapsed_s: float = 0.0
    num_tokens: int = 0
    num_skipped: int = 0
    loss: float | None = None
    precision: str = "fp32"


class Session:
    """Model, optimizer, averages, scaler and counters that are saved and restored together."""

    def __init__(self, model: Decoder, config: LoopConfig, state: TrainState) -> None:
        self.model, self.config, self.state = model, config, state
        fast = DTYPES["bf16" if state.precision == "bf16" else "fp32"]
        self.optimizers = build_optimizer(model, config.optimizer, orthogonalize_dtype=fast)
        self.average = None if config.ema_decay is None else WeightAverage(model, config.ema_decay)
        self.scaler = LossScaler() if state.precision == "fp16" else None
        self._clock = _Clock(state.elapsed_s)

    @classmethod
    def resume(cls, model: Decoder, config: LoopConfig, checkpoint: TrainingCheckpoint) -> Session:
        """Continue from a checkpoint.

        Raises:
            CheckpointError: it was made with another model or optimizer.
        """
        copy_parameters(model, _tensors(checkpoint, "model"))
        session = cls(model, config, TrainState(step=checkpoint.step, **checkpoint.state["train"]))
        session.optimizers.load_state_dict(_tensors(checkpoint, "optimizer"))
        restore_random_state(_tensors(checkpoint, "random"))
        if session.average is not None:
            session.average.load(_tensors(checkpoint, "average"))
        if session.scaler is not None:
            session.scaler = LossScaler(**checkpoint.state["scaler"])
        return session

    def tick(self) -> float:
        """Bring ``state.elapsed_s`` up to date and return it."""
        self.state.elapsed_s = self._clock.now()
        return self.state.elapsed_s

    def progress(self) -> float:
        """Return the share of the budget that is used."""
        return self.config.budget.progress(self.state.step, self.tick())

    def save(self, store: CheckpointStore) -> None:
        """Start writing a checkpoint of this moment."""
        self.tick()
        tensors: dict[str, Mapping[str, Tensor]] = {
            "model": model_tensors(self.model),
            "optimizer": self.optimizers.state_dict(),
            "random": capture_random_state(),
        }
        if self.average is not None:
            tensors["average"] = self.average.averages
        counters: dict[str, Any] = {**dataclasses.asdict(self.state)}
        del counters["step"]  # the checkpoint's own
        if counters["loss"] is not None and not math.isfinite(counters["loss"]):
            counters["loss"] = None  # JSON has no NaN
        state: dict[str, Any] = {"train": counters}
        if self.scaler is not None:
            state["scaler"] = dataclasses.asdict(self.scaler)
        store.save(self.state.step, tensors, state)


class _Clock:
    """Seconds of training over all sessions of a run."""

    def __init__(self, earlier_s: float) -> None:
        self._earlier_s = earlier_s
        self._start = time.monotonic()

    def now(self) -> float:
        return self._earlier_s + time.monotonic() - self._start


def model_tensors(model: Decoder) -> dict[str, Tensor]:
    """Return what a run changes: parameters, and buffers that checkpoints keep (routers' bias)."""
    return model.state_dict(keep_vars=True)


@torch.no_grad()
def copy_parameters(model: Decoder, tensors: Mapping[str, Tensor]) -> None:
    """Copy named tensors into a model.

    Raises:
        CheckpointError: names or shapes differ.
    """
    ours = model_tensors(model)
    wrong = [
        name
        for name in sorted(ours.keys() | tensors.keys())
        if name not in ours or name not in tensors or ours[name].shape != tensors[name].shape
    ]
    if wrong:
        raise CheckpointError(
            f"the checkpoint does not fit the model: {wrong[0]!r} is missing or has another shape",
            fix=_OTHER_CONFIG,
        )
    for name, parameter in ours.items():
        parameter.copy_(tensors[name])


def _tensors(checkpoint: TrainingCheckpoint, file: str) -> dict[str, Tensor]:
    if file not in checkpoint.tensors:
        raise CheckpointError(
            f"the checkpoint of step {checkpoint.step} has no {file}.safetensors",
            fix=_OTHER_CONFIG,
        )
    return checkpoint.tensors[file]
