"""Measurements behind ``weft plan calibrate``: steps of weft's own trainer on this machine."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from weft.plan.calibration import MachineMemory
from weft.plan.machine_training import TrainingCase, ledger_bytes
from weft.plan.memory import Precision
from weft.spec import ModelShape

Clock = Callable[[], float]
_SHORT = {"float32": "fp32", "bfloat16": "bf16"}
_TINY = (64, 1, 64, 64, 64, 512)
_MIDDLE = (256, 4, 256, 2048, 2048, 8192)
# Width, layers, sequence, tokens per step, per micro-batch, vocabulary: spread so that each
# quantity dominates somewhere.
STEPS = (
    (96, 3, 128, 512, 512, 2048),
    (160, 2, 512, 2048, 2048, 4096),
    (256, 4, 64, 512, 256, 1024),
    (384, 2, 256, 1024, 1024, 8192),
    (512, 2, 128, 256, 256, 1024),
    (128, 6, 256, 2048, 1024, 1024),
    (448, 3, 448, 1792, 1792, 2048),
    (192, 2, 128, 1024, 1024, 16_384),
    (320, 8, 64, 128, 128, 512),
)


def make_case(numbers: Sequence[int], precision: Precision = "float32") -> TrainingCase:
    """Return width, layers, sequence, tokens, micro-batch tokens and vocabulary as a case."""
    dim, num_layers, length, tokens, micro, vocab_size = numbers
    heads = max(1, dim // 64)
    shape = ModelShape(
        dim=dim,
        num_layers=num_layers,
        num_heads=heads,
        num_kv_heads=heads // 2 if heads % 2 == 0 else heads,
        head_dim=dim // heads,
        context_length=length,
    )
    return TrainingCase(shape.build(vocab_size), length, tokens, micro, precision)


def training_step(case: TrainingCase) -> Callable[[], object]:
    """Return a call that runs one optimizer step of weft's trainer."""
    import torch

    from weft.data.batch import IGNORE, Batch
    from weft.models.decoder import Decoder
    from weft.train.objective import NextTokenObjective
    from weft.train.optim import OptimizerConfig, build_optimizer
    from weft.train.step import train_step

    torch.manual_seed(0)
    model = Decoder(case.spec)
    dtype = torch.bfloat16 if case.precision == "bfloat16" else torch.float32
    optimizers = build_optimizer(model, OptimizerConfig(lr=1e-4), orthogonalize_dtype=dtype)
    rng = np.random.default_rng(0)
    num_sequences = case.micro_batch_tokens // case.sequence_length
    batches = []
    for _ in range(case.tokens_per_step // case.micro_batch_tokens):
        tokens_BS = rng.integers(0, case.spec.vocab_size, (num_sequences, case.sequence_length))
        labels_BS = np.roll(tokens_BS, -1, axis=1)
        labels_BS[:, -1] = IGNORE
        lengths = (case.sequence_length,) * num_sequences
        batches.append(Batch(tokens_BS.reshape(-1), labels_BS.reshape(-1), lengths))
    objective = NextTokenObjective()
    precision = _SHORT[case.precision]
    return lambda: train_step(model, optimizers, batches, objective, precision=precision)


def step_seconds(
    cases: Sequence[TrainingCase], *, rounds: int = 5, clock: Clock = time.perf_counter
) -> list[float]:
    """Return the median seconds of a step of each case, all cases once per round."""
    steps = [training_step(case) for case in cases]
    seconds: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + 1):
        for step, found in zip(steps, seconds, strict=True):
            start = clock()
            step()
            if number:  # the first one allocates and compiles
                found.append(clock() - start)
    return [statistics.median(found) for found in seconds]


def process_peak(case: TrainingCase, num_steps: int = 3) -> int:
    """Return the peak resident bytes of a fresh process that trains so."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (case, num_steps))


def _peak(case: TrainingCase, num_steps: int) -> int:
    import torch

    from weft.ops.machine import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    step = training_step(case)
    for _ in range(num_steps):
        step()
    return _own_peak_bytes()


def _own_peak_bytes() -> int:
    """Return the peak of this program; getrusage would include its parent's before exec."""
    from weft.core.environment import peak_memory_bytes

    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return peak_memory_bytes()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure_memory(precision: Precision = "float32") -> MachineMemory:
    """Return what a training process takes besides what the ledger counts."""
    tiny, middle = (make_case(numbers, precision) for numbers in (_TINY, _MIDDLE))
    base = process_peak(tiny) - ledger_bytes(tiny)
    grown = process_peak(middle) - base
    return MachineMemory(base, grown / ledger_bytes(middle))


def in_precision(cases: Sequence[TrainingCase], precision: Precision) -> list[TrainingCase]:
    """Return the cases in another precision."""
    return [replace(case, precision=precision) for case in cases]
