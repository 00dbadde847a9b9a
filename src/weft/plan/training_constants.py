"""Constants of the training model that no data sheet has, fitted once and shipped as data."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from weft.spec.hardware import HardwareSpec


@dataclass(frozen=True)
class TrainingConstants:
    """What fits share over all models, layouts and clusters.

    Attributes:
        sustained_share: By generation and type, what a device sustains of its best matmul rate
            over hours.
        attention_share: By generation, what portable fused attention reaches of the device's best,
            and "tuned" for vendors' kernels.
        power_exponent: How the sustained share grows with the power limit, relative to the
            generation's first device.
        inner_half: Inner width at which a product reaches half its share at 1 PFLOP/s.
        batched_half: Head width at which batched score products reach half their share.
        traffic: Times the least bytes that element-wise kernels move.
        gemm_backward: Backward over forward time of a product and of element-wise kernels.
        attention_backward: The same of fused attention.
        quantise_bytes: Bytes per number to cast it to a narrow type.
        overlap_loss: Share of hidden communication that slows computation down.
        reduce_window: Share of one micro batch's computation that gradient reduction hides in.
        network_decay: Loss of rate between nodes per doubling of their number.
        tensor_hidden: Share of tensor communication that hides where it is overlapped.
        tensor_share: Reached share of tensor-parallel reductions over that of large rings.
        all_to_all_share: Reached share of a link in all-to-all over its share in rings.
        expert_hidden: Share of expert communication that hides behind another micro batch where
            the pipeline interleaves.
        expert_host_s: Seconds per mixture layer and pass in which the host waits for counts.
        send_exposed: Share of stage messages that wait in the steady state.
        engine_s: Seconds per layer and micro batch a blocking pipeline engine adds.
        optimizer_bytes: Bytes per parameter of an update.
        host_s: Seconds per step outside of kernels.
        interval: Factor of the 80 % interval around a step time of a dense model: four of five
            rows lie in it when their source is left out of the fit.
        interval_experts: The same of a mixture of experts.
    """

    sustained_share: dict[str, float] = field(default_factory=dict)
    attention_share: dict[str, float] = field(default_factory=dict)
    power_exponent: float = 0.7
    inner_half: float = 200.0
    batched_half: float = 60.0
    traffic: float = 1.3
    gemm_backward: float = 2.15
    attention_backward: float = 3.0
    quantise_bytes: float = 3.0
    overlap_loss: float = 0.1
    reduce_window: float = 0.7
    network_decay: float = 0.05
    tensor_hidden: float = 0.7
    tensor_share: float = 0.9
    all_to_all_share: float = 0.6
    expert_hidden: float = 0.7
    expert_host_s: float = 2e-4
    send_exposed: float = 0.2
    engine_s: float = 5e-3
    optimizer_bytes: float = 40.0
    host_s: float = 0.02
    interval: float = 1.122
    interval_experts: float = 1.3

    def sustained(self, device: HardwareSpec, dtype: str) -> float:
        """Return the share of its best matmul rate a device sustains in this type."""
        generation = GENERATIONS.get(device.name.split("-")[0])
        if generation is None:
            return _UNKNOWN_SHARE
        power = (device.power_w / _REFERENCE_POWER_W[generation]) ** self.power_exponent
        return self.sustained_share.get(f"{generation}-{dtype}", _UNKNOWN_SHARE) * power

    def attention(self, device: HardwareSpec, kernel: str) -> float:
        """Return the share of its best attention rate a kind of kernel reaches."""
        if kernel == "tuned":
            return self.attention_share.get("tuned", 1.0)
        generation = GENERATIONS.get(device.name.split("-")[0], "")
        return self.attention_share.get(generation, _UNKNOWN_SHARE)


GENERATIONS = {
    "A100": "ampere", "A800": "ampere",
    "H100": "hopper", "H800": "hopper", "H200": "hopper", "H20": "hopper", "GH200": "hopper",
    "B200": "blackwell", "B300": "blackwell", "GB200": "blackwell", "GB300": "blackwell",
}  # fmt: skip
"""Architecture by the first word of a device's name."""
_REFERENCE_POWER_W = {"ampere": 400.0, "hopper": 700.0, "blackwell": 1000.0}
_UNKNOWN_SHARE = 0.85


@cache
def training_constants() -> TrainingConstants:
    """Return the constants the package ships."""
    text = resources.files("weft.plan.data").joinpath("training.toml").read_text("utf-8")
    return from_table(tomllib.loads(text))


def from_table(table: dict[str, Any]) -> TrainingConstants:
    """Return constants from the tables of ``training.toml``."""
    return TrainingConstants(**table)
