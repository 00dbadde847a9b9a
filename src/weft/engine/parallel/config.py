"""How an engine is spread over processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weft.core.errors import ConfigError


@dataclass(frozen=True)
class ParallelConfig:
    """Ranks of one engine: processes on this machine that compute every step together.

    Attributes:
        tensor: Ranks that share each layer; 1 means no sharing.
        pipeline: Ranks that have different layers; 1 means that each has all. Not together with
            ``tensor``. It spreads memory and makes nothing faster: stages take turns.
        expert_split: Mixtures of experts cut the "width" of every expert, or deal out whole
            "experts" (expert parallelism).
        launch: "local" starts the other ranks as processes of this one; "torchrun" joins those
            that torchrun has started.
        timeout_s: A step in which a rank waits longer than this for the others has failed.
        start_timeout_s: All ranks have to have loaded their weights after this.
    """

    tensor: int = 1
    pipeline: int = 1
    expert_split: Literal["width", "experts"] = "width"
    launch: Literal["local", "torchrun"] = "local"
    timeout_s: float = 60.0
    start_timeout_s: float = 600.0

    def __post_init__(self) -> None:
        for name in ("tensor", "pipeline"):
            if getattr(self, name) < 1:
                raise ConfigError(f"parallel.{name} is {getattr(self, name)}", fix="use at least 1")
        if self.tensor > 1 and self.pipeline > 1:
            raise ConfigError(
                f"parallel.tensor is {self.tensor} and parallel.pipeline {self.pipeline}",
                fix="set one of them to 1",
            )
        for name in ("timeout_s", "start_timeout_s"):
            value = getattr(self, name)
            if value <= 0:
                raise ConfigError(f"parallel.{name} is {value}", fix="use seconds above 0")

    @property
    def num_ranks(self) -> int:
        """Processes, the one that schedules included."""
        return self.tensor * self.pipeline
