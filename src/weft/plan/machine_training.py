"""Training steps on a measured machine: prices learnt from a few steps of weft's own trainer.

A step is a sum of quantities times prices, all from the model's description: FLOPs of matrix
products (dearer where the width is small), activations through memory, optimizer traffic, and a
fixed time per layer and micro-batch for launching kernels. Non-negative least squares on relative
errors finds the prices; the shipped constants of ``weft.plan.training`` are what they start from,
weighted as one further measurement each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from weft.core.errors import ConfigError
from weft.plan.flops import training_flops
from weft.plan.memory import Precision, activation_bytes, training_memory
from weft.plan.parameters import count_parameters
from weft.plan.training import (
    ACTIVATION_TRIPS,
    HALF_SHARE_WIDTH,
    OPTIMIZER_BYTES_PER_PARAMETER,
    PEAK_SHARE,
)
from weft.spec import HardwareSpec, ModelSpec

_NUM_PRICES = 4
# Weight of the shipped constants against one measured step.
_PRIOR = 0.05


@dataclass(frozen=True)
class TrainingCase:
    """One way to train on one device.

    Attributes:
        spec: The model.
        sequence_length: Tokens of a sequence.
        tokens_per_step: Tokens between optimizer steps.
        micro_batch_tokens: Tokens of one forward and backward pass.
        precision: Of matrix products.
    """

    spec: ModelSpec
    sequence_length: int
    tokens_per_step: int
    micro_batch_tokens: int
    precision: Precision = "float32"

    def quantities(self, hardware: HardwareSpec) -> tuple[float, ...]:
        """Return what a step takes of each thing, in seconds at the machine's peaks."""
        spec, precision = self.spec, self.precision
        flops = training_flops(spec, [self.sequence_length]) / self.sequence_length
        flops *= self.tokens_per_step
        narrow = 1.0 + HALF_SHARE_WIDTH[precision] / spec.dim
        products_s = flops * narrow / hardware.matmul_flops[precision]
        moved = activation_bytes(spec, precision) * self.tokens_per_step
        updated = OPTIMIZER_BYTES_PER_PARAMETER * count_parameters(spec).total
        num_micro = -(-self.tokens_per_step // self.micro_batch_tokens)
        bandwidth = hardware.memory_bandwidth
        return products_s, moved / bandwidth, updated / bandwidth, spec.num_layers * num_micro


@dataclass(frozen=True)
class MachinePrices:
    """What a machine charges, learnt from steps.

    Attributes:
        products: Seconds per second of matrix products at the peak.
        activations: Times the saved activations cross memory.
        optimizer: Times the optimizer's least traffic.
        layer_s: Seconds per layer and micro-batch besides.
        residual: Median relative error on the steps it was learnt from.
    """

    products: float
    activations: float
    optimizer: float
    layer_s: float
    residual: float = 0.0

    def step_s(self, case: TrainingCase, hardware: HardwareSpec) -> float:
        """Return the seconds of one optimizer step."""
        return float(np.dot(self.values, case.quantities(hardware)))

    def parts(self, case: TrainingCase, hardware: HardwareSpec) -> dict[str, float]:
        """Return the seconds of a step by what they are spent on."""
        names = ("matrix products", "activations through memory", "optimizer", "launches")
        pairs = zip(self.values, case.quantities(hardware), strict=True)
        return dict(zip(names, (price * amount for price, amount in pairs), strict=True))

    @property
    def values(self) -> tuple[float, ...]:
        """The prices in the order of ``TrainingCase.quantities``."""
        return self.products, self.activations, self.optimizer, self.layer_s


def fit_prices(
    cases: Sequence[TrainingCase], seconds: Sequence[float], hardware: HardwareSpec
) -> MachinePrices:
    """Learn prices from measured steps of one precision.

    Raises:
        ConfigError: no steps, or a time that is not positive.
    """
    if not cases or min(seconds) <= 0.0:
        raise ConfigError(f"{len(cases)} steps show no prices", fix="measure at least one step")
    amounts = np.array([case.quantities(hardware) for case in cases])
    rows = amounts / np.asarray(seconds)[:, None]
    start = np.array([1.0 / PEAK_SHARE[cases[0].precision], ACTIVATION_TRIPS, 1.0, 1e-4])
    prior = np.sqrt(_PRIOR) * np.diag(1.0 / start)
    stacked = np.vstack([rows, prior])
    target = np.concatenate([np.ones(len(rows)), np.full(_NUM_PRICES, np.sqrt(_PRIOR))])
    found = _non_negative(stacked, target)
    residual = float(np.median(np.abs(rows @ found - 1.0)))
    return MachinePrices(*found.tolist(), residual=residual)


def process_bytes(case: TrainingCase, *, base_bytes: int, optimizer: str, slack: float) -> float:
    """Return the peak memory of a training process: what it takes empty, and the ledger."""
    ledger = training_memory(
        case.spec,
        micro_batch_tokens=case.micro_batch_tokens,
        optimizer=optimizer,
        precision=case.precision,
    )
    return base_bytes + slack * ledger.total


def _non_negative(rows: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Solve least squares with x >= 0 by trying every set of non-zero entries."""
    best, best_error = np.zeros(rows.shape[1]), float("inf")
    columns = range(rows.shape[1])
    for kept in (chosen for n in columns for chosen in combinations(columns, n + 1)):
        found, *_ = np.linalg.lstsq(rows[:, kept], target, rcond=None)
        error = float(np.square(rows[:, kept] @ found - target).sum())
        if (found >= 0.0).all() and error < best_error:
            best, best_error = np.zeros(rows.shape[1]), error
            best[list(kept)] = found
    return best
