"""Learning-rate schedules as closed forms of the step and the share of the budget used.

The budget may be steps or minutes: a schedule only sees how much of it is gone, so a run that is
told to last three minutes still decays to its end on any machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from weft.core.errors import ConfigError


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate changes over a run.

    Attributes:
        kind: wsd (warm-up, stable, decay; Hu et al. 2024, arXiv:2404.06395), cosine (Loshchilov
            and Hutter 2017, arXiv:1608.03983), linear or constant; all begin with the warm-up.
        warmup_steps: The rate rises linearly over this many steps.
        decay_fraction: Last part of the budget in which wsd decays linearly.
        final_lr_fraction: What is left of the rate at the end (not for constant).
    """

    kind: Literal["wsd", "cosine", "linear", "constant"] = "wsd"
    warmup_steps: int = 20
    decay_fraction: float = 0.4
    final_lr_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ConfigError(f"warmup_steps is {self.warmup_steps}; it must be at least 0")
        for name in ("decay_fraction", "final_lr_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")

    def factor(self, step: int, total_steps: int) -> float:
        """Return the factor on the learning rate of ``step`` (from 0) of ``total_steps``."""
        return self.factor_at(step, step / max(total_steps, 1))

    def factor_at(self, step: int, progress: float) -> float:
        """Return the factor of ``step`` when the share ``progress`` of the budget is used.

        The product of the warm-up, which counts steps, and the shape, which follows the budget.
        """
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return warmup * self._shape(min(max(progress, 0.0), 1.0))

    def _shape(self, progress: float) -> float:
        if self.kind == "constant":
            return 1.0
        if self.kind == "cosine":
            height = (1.0 + math.cos(math.pi * progress)) / 2
        elif self.kind == "linear":
            height = 1.0 - progress
        else:
            left = 1.0 - progress
            height = 1.0 if left >= self.decay_fraction else left / self.decay_fraction
        return self.final_lr_fraction + (1.0 - self.final_lr_fraction) * height
