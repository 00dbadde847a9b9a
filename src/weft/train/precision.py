"""In which element type matmuls run: float32, or bfloat16 or float16 under autocast.

Parameters, gradients and optimizer state stay float32. bfloat16 has float32's range and needs
nothing else; float16 gradients underflow, so their loss is scaled (Micikevicius et al. 2018,
arXiv:1710.03740).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Precision = Literal["auto", "bf16", "fp16", "fp32"]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

# bfloat16 keeps 8 bits: the loss of one batch agrees with float32 to about 2^-8 relative.
MAX_LOSS_DIFFERENCE = 0.02
MIN_SPEEDUP = 1.05


def autocast(precision: str, device_type: str) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a forward pass of this precision runs."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device_type, dtype=DTYPES[precision])


@dataclass(frozen=True)
class PrecisionCheck:
    """What the measured check found.

    Attributes:
        precision: The choice, "bf16" or "fp32".
        reason: The choice in one sentence.
        fp32_s: Seconds of one forward and backward pass in float32.
        bf16_s: The same under bfloat16 autocast.
        loss_difference: Relative difference of the two losses.
    """

    precision: Literal["bf16", "fp32"]
    reason: str
    fp32_s: float
    bf16_s: float
    loss_difference: float


def check_precision(
    loss: Callable[[], Tensor], model: nn.Module, device_type: str
) -> PrecisionCheck:
    """Run a real step in both types and choose bfloat16 only where it is faster and agrees.

    ``loss`` computes the loss of one batch; no parameter changes and all gradients are dropped.
    """
    fp32_loss, fp32_s = _timed(loss, model, "fp32", device_type)
    bf16_loss, bf16_s = _timed(loss, model, "bf16", device_type)
    difference = abs(bf16_loss - fp32_loss) / max(abs(fp32_loss), 1e-12)
    speedup = fp32_s / bf16_s
    agrees = difference <= MAX_LOSS_DIFFERENCE  # False for NaN too
    if agrees and speedup >= MIN_SPEEDUP:
        reason = f"bf16 is {speedup:.2f}x as fast as fp32 here and agrees to {difference:.1e}"
        return PrecisionCheck("bf16", reason, fp32_s, bf16_s, difference)
    reason = (
        f"bf16 is only {speedup:.2f}x as fast as fp32 here"
        if agrees
        else f"the bf16 loss differs by {difference:.1e} from fp32"
    )
    return PrecisionCheck("fp32", reason, fp32_s, bf16_s, difference)


def _timed(
    loss: Callable[[], Tensor], model: nn.Module, precision: str, device_type: str
) -> tuple[float, float]:
    """Return the loss and the seconds of the second of two passes."""
    value, seconds = 0.0, 0.0
    for _ in range(2):  # the first one compiles kernels and fills caches
        start = time.perf_counter()
        with autocast(precision, device_type):
            result = loss()
        result.backward()
        value = float(result.detach())
        seconds = time.perf_counter() - start
        model.zero_grad(set_to_none=True)
    return value, seconds


@dataclass
class LossScaler:
    """Dynamic loss scaling for float16: halve on overflow, double after a quiet stretch.

    Attributes:
        scale: The factor on the loss.
        growth_factor: Applied after ``growth_interval`` steps without overflow.
        backoff_factor: Applied when a gradient is not finite.
        growth_interval: Steps between growths.
        quiet_steps: Steps since the last change.
    """

    scale: float = 2.0**16
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    quiet_steps: int = 0

    def update(self, overflowed: bool) -> None:
        """Adapt the scale to whether the last step overflowed."""
        if overflowed:
            self.scale *= self.backoff_factor
            self.quiet_steps = 0
            return
        self.quiet_steps += 1
        if self.quiet_steps == self.growth_interval:
            self.scale *= self.growth_factor
            self.quiet_steps = 0
