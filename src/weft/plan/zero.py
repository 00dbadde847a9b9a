"""Optimizer-state sharding: memory and traffic of ZeRO's stages (arXiv:1910.02054, section 3).

With mixed precision and Adam a parameter takes 2 bytes of weight, 2 of gradient and K = 12 of
master copy and moments. Stage 1 divides the K bytes by the data-parallel size, stage 2 the
gradients too, stage 3 the weights too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weft.core.errors import ConfigError

ZeroStage = Literal[0, 1, 2, 3]


@dataclass(frozen=True)
class StateBytes:
    """Bytes per parameter on one device.

    Attributes:
        weights: The copy that computes.
        gradients: One per parameter.
        optimizer: Master copy and moments.
    """

    weights: float = 2.0
    gradients: float = 2.0
    optimizer: float = 12.0

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer

    def sharded(self, stage: ZeroStage, num_shards: int) -> StateBytes:
        """Return what is left on one of ``num_shards`` devices.

        >>> StateBytes().sharded(1, 64).total * 7.5
        31.40625

        Raises:
            ConfigError: no such stage, or no shards.
        """
        if stage not in (0, 1, 2, 3) or num_shards < 1:
            raise ConfigError(
                f"ZeRO stage {stage} over {num_shards} devices", fix="use stages 0 to 3"
            )
        return StateBytes(
            self.weights / (num_shards if stage >= 3 else 1),
            self.gradients / (num_shards if stage >= 2 else 1),
            self.optimizer / (num_shards if stage >= 1 else 1),
        )


# bf16 weights with fp32 gradients, as Megatron keeps them: 18 bytes, or 6 + 12/d distributed.
MEGATRON = StateBytes(weights=2.0, gradients=4.0, optimizer=12.0)


def state_bytes(num_parameters: float, stage: ZeroStage, num_shards: int) -> float:
    """Return bytes of training state on one device with mixed-precision Adam."""
    return num_parameters * StateBytes().sharded(stage, num_shards).total


def step_traffic(num_parameters: float, stage: ZeroStage) -> float:
    """Return numbers one device sends per step, in the limit of many devices.

    An all-reduce of the gradients is a reduce-scatter and an all-gather, 2Ψ; stage 3 gathers the
    weights in forward and backward and scatters the gradients, 3Ψ (section 7).
    """
    return num_parameters * (3.0 if stage >= 3 else 2.0)
