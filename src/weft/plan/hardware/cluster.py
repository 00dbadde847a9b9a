"""Many devices: how far a group of ranks reaches, and over which link."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from weft.core.errors import ConfigError
from weft.plan.hardware.catalogue import device
from weft.plan.hardware.links import Link, link
from weft.spec.hardware import HardwareSpec


@dataclass(frozen=True)
class Span:
    """How a group of ranks lies on the machine.

    Attributes:
        inside: Ranks of the group that share a node.
        across: Nodes the group covers; ``inside * across`` is the group's size.
    """

    inside: int
    across: int

    @property
    def size(self) -> int:
        return self.inside * self.across


@dataclass(frozen=True)
class Cluster:
    """Equal devices in equal nodes.

    Attributes:
        device: One of them.
        num_devices: All of them.
        devices_per_node: Devices that share the inner link.
        scale_up: The link inside a node or rack.
        scale_out: The link between nodes, one share per device.
    """

    device: HardwareSpec
    num_devices: int
    devices_per_node: int
    scale_up: Link
    scale_out: Link

    def __post_init__(self) -> None:
        if self.num_devices < 1 or self.devices_per_node < 1:
            raise ConfigError(
                f"{self.num_devices} devices in nodes of {self.devices_per_node}",
                fix="give at least one of each",
            )

    @classmethod
    def of(
        cls,
        hardware: HardwareSpec | str,
        num_devices: int = 1,
        *,
        scale_up: Link | None = None,
        scale_out: Link | None = None,
    ) -> Cluster:
        """Return a cluster of one kind of device with the links its catalogue entry names."""
        spec = device(hardware) if isinstance(hardware, str) else hardware
        return cls(
            device=spec,
            num_devices=num_devices,
            devices_per_node=spec.scale_up_size,
            scale_up=scale_up or link(spec.scale_up or "pcie4"),
            scale_out=scale_out or link(spec.scale_out or "ethernet-100"),
        )

    @classmethod
    def parse(cls, text: str) -> Cluster:
        """Read "H100", "H100x512" or "B200 x 64".

        Raises:
            ConfigError: not of this form, or an unknown device.
        """
        match = re.fullmatch(r"\s*(?P<name>.+?)(?:\s*[x×*]\s*(?P<count>\d+))?\s*", text)
        if match is None:
            raise ConfigError(f"{text!r} names no hardware", fix='write "H100x64"')
        return cls.of(match["name"], int(match["count"] or 1))

    def span(self, group_size: int, stride: int = 1) -> Span:
        """Return how a group with ``stride`` between neighbouring ranks lies on the nodes.

        >>> Cluster.parse("H100x64").span(8, stride=2)
        Span(inside=4, across=2)
        """
        inside = max(1, min(group_size, self.devices_per_node // max(1, stride)))
        while group_size % inside:
            inside -= 1
        return Span(inside, group_size // inside)

    def with_devices(self, num_devices: int) -> Cluster:
        """Return the same kind of cluster at another size."""
        return replace(self, num_devices=num_devices)
