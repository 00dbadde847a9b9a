"""Data, tensor, sequence and pipeline parallelism on devices that exist only as clocks.

Courses show parallel training with threads as devices and print what the wall clock says, which
depends on the machine and its neighbours. Here every device has an array memory and a clock of its
own: a product advances the clock by its FLOPs over the rate, a collective lets all wait for the
last and then takes what the link takes. Results are real and equal those of one device; times are
modelled, so that a speed-up is the same everywhere.

B batch, I input width, F hidden width, O output width; the network is ``relu(x W1) W2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import ConfigError
from weft.plan.collective_traffic import run_all_reduce
from weft.plan.hardware.links import Link

Array = NDArray[np.float64]


@dataclass
class VirtualDevices:
    """Devices with clocks.

    Attributes:
        num_devices: How many.
        flops_per_s: Rate of each.
        link: Between any two.
        clocks_s: Time of each device.
        sent_bytes: By all devices together.
    """

    num_devices: int
    flops_per_s: float
    link: Link
    clocks_s: list[float] = field(default_factory=list)
    sent_bytes: int = 0

    def __post_init__(self) -> None:
        if self.num_devices < 1 or self.flops_per_s <= 0.0:
            raise ConfigError(
                f"{self.num_devices} devices of {self.flops_per_s} FLOP/s",
                fix="give at least one device and a rate above 0",
            )
        self.clocks_s = [0.0] * self.num_devices

    @property
    def elapsed_s(self) -> float:
        """Time of the device that is last."""
        return max(self.clocks_s)

    def product(self, device: int, a: Array, b: Array) -> Array:
        """Multiply on one device, which takes 2 M N K over its rate."""
        self.clocks_s[device] += 2.0 * a.shape[0] * a.shape[1] * b.shape[1] / self.flops_per_s
        return a @ b

    def all_reduce(self, parts: Sequence[Array]) -> list[Array]:
        """Sum one array of each device on all of them, in a ring."""
        shape, size = parts[0].shape, parts[0].size
        padded = -(-size // self.num_devices) * self.num_devices
        buffers = np.zeros((self.num_devices, padded))
        for row, part in zip(buffers, parts, strict=True):
            row[:size] = part.ravel()
        traffic = run_all_reduce("ring", buffers)
        self._exchange(traffic.busiest_bytes, traffic.num_steps, sum(traffic.link_bytes.values()))
        return [row[:size].reshape(shape) for row in traffic.buffers]

    def all_gather(self, parts: Sequence[Array]) -> list[Array]:
        """Lay the arrays of all devices end to end on each of them, in a ring."""
        each = max(part.nbytes for part in parts) * (self.num_devices - 1)
        self._exchange(each, self.num_devices - 1, each * self.num_devices)
        whole = np.concatenate(parts)
        return [whole.copy() for _ in parts]

    def send(self, source: int, target: int, array: Array) -> Array:
        """Pass an array on; the target waits for it, the source does not."""
        arrival_s = self.clocks_s[source] + self.link.seconds(array.nbytes)
        self.clocks_s[target] = max(self.clocks_s[target], arrival_s)
        self.sent_bytes += array.nbytes
        return array.copy()

    def _exchange(self, device_bytes: int, num_steps: int, all_bytes: int) -> None:
        seconds = self.link.seconds(device_bytes, steps=num_steps)
        self.clocks_s = [self.elapsed_s + seconds] * self.num_devices
        self.sent_bytes += all_bytes


@dataclass(frozen=True)
class Gradients:
    """Of the sum of squared outputs over two."""

    w1_IF: Array
    w2_FO: Array


def train_data_parallel(
    devices: VirtualDevices, x_BI: Array, w1_IF: Array, w2_FO: Array
) -> Gradients:
    """Cut the batch, compute gradients of the parts, sum them."""
    parts = [
        _gradients(devices, device, x, w1_IF, w2_FO)
        for device, x in enumerate(_cut(x_BI, devices.num_devices, 0))
    ]
    w1 = devices.all_reduce([part.w1_IF for part in parts])
    w2 = devices.all_reduce([part.w2_FO for part in parts])
    return Gradients(w1[0], w2[0])


def forward_tensor_parallel(
    devices: VirtualDevices, x_BI: Array, w1_IF: Array, w2_FO: Array
) -> Array:
    """Cut W1 by columns and W2 by rows; one sum restores the output (Megatron, 1909.08053)."""
    count = devices.num_devices
    columns, rows = _cut(w1_IF, count, 1), _cut(w2_FO, count, 0)
    partial = []
    for device in range(count):
        hidden_BF = np.maximum(devices.product(device, x_BI, columns[device]), 0.0)
        partial.append(devices.product(device, hidden_BF, rows[device]))
    return devices.all_reduce(partial)[0]


def forward_sequence_parallel(
    devices: VirtualDevices, x_BI: Array, w1_IF: Array, w2_FO: Array
) -> Array:
    """Cut the rows (tokens) and gather the outputs; weights are whole on every device."""
    parts = []
    for device, x in enumerate(_cut(x_BI, devices.num_devices, 0)):
        hidden = np.maximum(devices.product(device, x, w1_IF), 0.0)
        parts.append(devices.product(device, hidden, w2_FO))
    return devices.all_gather(parts)[0]


def forward_pipeline(
    devices: VirtualDevices, x_BI: Array, weights: Sequence[Array], *, num_micro: int
) -> Array:
    """Give every device one layer and pass micro batches on (GPipe, 1811.06965)."""
    if len(weights) != devices.num_devices:
        raise ConfigError(
            f"{len(weights)} layers for {devices.num_devices} devices", fix="give one to each"
        )
    outputs = []
    for micro in _cut(x_BI, num_micro, 0):
        for device, weight in enumerate(weights):
            if device:
                micro = devices.send(device - 1, device, micro)
            micro = np.maximum(devices.product(device, micro, weight), 0.0)
        outputs.append(micro)
    return np.concatenate(outputs)


def _gradients(
    devices: VirtualDevices, device: int, x_BI: Array, w1_IF: Array, w2_FO: Array
) -> Gradients:
    before_BF = devices.product(device, x_BI, w1_IF)
    hidden_BF = np.maximum(before_BF, 0.0)
    out_BO = devices.product(device, hidden_BF, w2_FO)
    d_w2_FO = devices.product(device, hidden_BF.T, out_BO)
    d_hidden_BF = devices.product(device, out_BO, w2_FO.T) * (before_BF > 0.0)
    return Gradients(devices.product(device, x_BI.T, d_hidden_BF), d_w2_FO)


def _cut(array: Array, count: int, axis: int) -> list[Array]:
    if array.shape[axis] % count:
        raise ConfigError(
            f"{array.shape[axis]} does not split into {count} equal parts", fix="choose a divisor"
        )
    return np.split(array, count, axis=axis)
