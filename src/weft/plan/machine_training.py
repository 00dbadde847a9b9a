"""Training steps on a measured machine: prices learnt from a few steps of weft's own trainer.

A step is a sum of quantities times prices, all from the model's description: matrix products
(dearer where the width is small), attention, activations and scores through memory, optimizer
traffic, orthogonalisation (Muon), and a fixed time per layer and micro-batch for launching
kernels. Non-negative least squares on relative errors finds the prices; shipped constants are what
they start from, weighted as a small part of one measurement each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.core.errors import ConfigError
from weft.plan.accounting import distinct_layers
from weft.plan.flops import training_flops
from weft.plan.least_squares import non_negative
from weft.plan.matrices import layer_matrices
from weft.plan.memory import Precision, activation_bytes, training_memory
from weft.plan.parameters import count_parameters
from weft.plan.training import (
    ACTIVATION_TRIPS,
    HALF_SHARE_WIDTH,
    OPTIMIZER_BYTES_PER_PARAMETER,
    PEAK_SHARE,
)
from weft.spec import HardwareSpec, ModelSpec

QUANTITIES = (
    "matrix products", "attention", "activations through memory", "scores through memory",
    "optimizer", "orthogonalisation", "launches",
)  # fmt: skip
# What the search for prices starts from; the shares of the peak are per precision.
_START = (1.0, 3.0, ACTIVATION_TRIPS, 6.0, 1.0, 1.5, 1e-4)
# Weight of a start against one measured step.
_PRIOR = 0.003
_NEWTON_SCHULZ_STEPS = 5


@dataclass(frozen=True)
class TrainingCase:
    """One way to train on one device with weft's own trainer and its default optimizer.

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
        """Return ``QUANTITIES`` of a step, in seconds at the machine's peaks; launches as such."""
        spec, tokens, length = self.spec, self.tokens_per_step, self.sequence_length
        per_token = training_flops(spec, [length]) / length
        products = training_flops(spec, [1])
        narrow = 1.0 + HALF_SHARE_WIDTH[self.precision] / spec.dim
        rate, bandwidth = hardware.matmul_flops[self.precision], hardware.memory_bandwidth
        num_micro = -(-tokens // self.micro_batch_tokens)
        return (
            tokens * products * narrow / rate,
            tokens * (per_token - products) / rate,
            tokens * activation_bytes(spec, self.precision) / bandwidth,
            tokens * 4.0 * spec.vocab_size / bandwidth,
            OPTIMIZER_BYTES_PER_PARAMETER * count_parameters(spec).total / bandwidth,
            orthogonal_flops(spec) / rate,
            spec.num_layers * num_micro,
        )


def orthogonal_flops(spec: ModelSpec) -> float:
    """Return the FLOPs of Newton-Schulz over all matrices of the layers (Jordan et al. 2024).

    Five times a Gram matrix of the shorter side, its square, and the product with the matrix.
    """
    total = 0.0
    for layer, count in distinct_layers(spec).items():
        for matrix in layer_matrices(layer, spec.dim):
            short = min(matrix.inner, matrix.columns)
            long = max(matrix.inner, matrix.columns)
            once = 4.0 * short * short * long + 2.0 * short**3
            total += count * max(1, matrix.num_experts) * once
    return _NEWTON_SCHULZ_STEPS * total


@dataclass(frozen=True)
class MachinePrices:
    """What a machine charges, learnt from steps.

    Attributes:
        values: A factor on each of ``QUANTITIES``; seconds for launches.
        residual: Median relative error on the steps it was learnt from.
    """

    values: tuple[float, ...]
    residual: float = 0.0

    def step_s(self, case: TrainingCase, hardware: HardwareSpec) -> float:
        """Return the seconds of one optimizer step."""
        return float(np.dot(self.values, case.quantities(hardware)))

    def parts(self, case: TrainingCase, hardware: HardwareSpec) -> dict[str, float]:
        """Return the seconds of a step by what they are spent on."""
        amounts = case.quantities(hardware)
        spent = (price * amount for price, amount in zip(self.values, amounts, strict=True))
        return dict(zip(QUANTITIES, spent, strict=True))


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
    start = np.array(_START)
    start[:2] /= PEAK_SHARE[cases[0].precision]
    prior = np.sqrt(_PRIOR) * np.diag(1.0 / start)
    stacked = np.vstack([rows, prior])
    target = np.concatenate([np.ones(len(rows)), np.full(len(start), np.sqrt(_PRIOR))])
    found = non_negative(stacked, target)
    residual = float(np.median(np.abs(rows @ found - 1.0)))
    return MachinePrices(tuple(found.tolist()), residual)


def process_bytes(
    case: TrainingCase, *, base_bytes: float, slack: float = 1.0, optimizer: str = "muon_adamw"
) -> float:
    """Return the peak memory of a training process: what it takes empty, and the ledger."""
    return base_bytes + slack * ledger_bytes(case, optimizer)


def ledger_bytes(case: TrainingCase, optimizer: str = "muon_adamw") -> int:
    """Return what the ledger counts for a case."""
    ledger = training_memory(
        case.spec,
        micro_batch_tokens=case.micro_batch_tokens,
        optimizer=optimizer,
        precision=case.precision,
    )
    return ledger.total
