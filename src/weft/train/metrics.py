"""What a run reports: sums on the device between two reports, read by the host only then."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from weft.core.console import format_count
from weft.core.environment import peak_memory_bytes
from weft.plan.flops import training_flops
from weft.spec import HardwareSpec, ModelSpec
from weft.train.balance import Loads, add_loads, load_metrics, mean_imbalance
from weft.train.evaluate import bits_per_byte
from weft.train.step import StepResult
from weft.train.throughput import matmul_peak, model_flops_utilization


class Meter:
    """Collects step results and turns them into one event of metrics.

    Args:
        spec: The model, for its FLOPs.
        precision: Decides which peak rate the utilization refers to.
        hardware: Measured peaks; without them there is no MFU.
        bytes_per_token: Bytes of text a token stands for; without it no bits per byte.
    """

    def __init__(
        self,
        spec: ModelSpec,
        precision: str,
        *,
        hardware: HardwareSpec | None = None,
        bytes_per_token: float | None = None,
    ) -> None:
        self._spec = spec
        self._peak = matmul_peak(hardware, precision)
        self._bytes_per_token = bytes_per_token
        self._reset()

    def _reset(self) -> None:
        self._start = time.perf_counter()
        self._sums: dict[str, Tensor] = {}
        self._grad_norm: Tensor | None = None
        self._num_tokens = 0
        self._flops = 0
        self._loads: Loads = {}

    @property
    def age_s(self) -> float:
        """Seconds since the last report."""
        return time.perf_counter() - self._start

    def add(self, result: StepResult, lengths: list[int]) -> None:
        """Take in one step over documents of these lengths."""
        terms = {"loss": result.loss_sum, "count": result.count, "skipped": result.skipped}
        for name, value in {**terms, **result.stats}.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._loads = add_loads(self._loads, result.loads)
        self._grad_norm = result.grad_norm
        self._num_tokens += sum(lengths)
        if self._peak:
            self._flops += training_flops(self._spec, lengths)

    def report(self, device: torch.device) -> dict[str, Any]:
        """Return the metrics since the last report and start anew; waits for the device.

        "routing" among them holds loads and imbalance by layer where there are experts.
        """
        sums = {name: float(value) for name, value in self._sums.items()}
        count = max(sums.pop("count"), 1.0)
        skipped = int(sums.pop("skipped"))
        means = {name: value / count for name, value in sums.items()}
        assert self._grad_norm is not None
        norm = float(self._grad_norm)
        elapsed_s = self.age_s
        values: dict[str, Any] = {**means, "grad_norm": norm, "num_skipped": skipped}
        if self._bytes_per_token is not None:
            values["bits_per_byte"] = bits_per_byte(means["loss"], self._bytes_per_token)
        values["tokens_per_s"] = self._num_tokens / elapsed_s
        if self._peak:
            values["mfu"] = model_flops_utilization(self._flops, elapsed_s, self._peak)
        values["memory_bytes"] = _peak_memory_bytes(device)
        if self._loads:
            values["routing"] = load_metrics(self._loads)
            values["imbalance"] = mean_imbalance(self._loads)
        self._reset()
        return values


def status_line(metrics: dict[str, Any]) -> str:
    """Return the metrics of one event as a short text for the live line."""
    parts = [f"loss {metrics['loss']:.3f}"]
    if "bits_per_byte" in metrics:
        parts.append(f"{metrics['bits_per_byte']:.3f} bits/byte")
    parts.append(f"{format_count(metrics['tokens_per_s'])} tok/s")
    if "mfu" in metrics:
        parts.append(f"MFU {metrics['mfu']:.0%}")
    if metrics["num_skipped"]:
        parts.append(f"{metrics['num_skipped']} skipped")
    return " · ".join(parts)


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory_bytes()
