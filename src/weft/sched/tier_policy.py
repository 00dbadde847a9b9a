"""How large the lower tiers of the KV cache are, and when reading from them beats computing.

Reading n blocks takes ``latency + n * block_bytes / bandwidth`` seconds, computing them again
``n * block_size / prefill_tokens_per_s``. So short prefixes are computed and long ones are read,
and a tier slower than the model never is. ``weft.plan.inference.reuse`` predicts the same two
times for hardware and models that are not at hand.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from weft.core.errors import ConfigError


class Tier(enum.Enum):
    """Where a block is that the device does not have."""

    HOST = "host"
    DISK = "disk"


@dataclass(frozen=True, kw_only=True)
class TierConfig:
    """Keys and values in host memory and on disk, for prefixes the device has no room for.

    Attributes:
        host_bytes: Host memory for blocks.
        disk_bytes: Disk space for blocks that the host tier has no room for; 0 is no disk tier.
        disk_path: Folder for the file, which goes when the engine goes; none is the system's for
            temporary files.
        write_policy: Copy a block to the host when it is computed ("write_through"), or when its
            place on the device is taken ("write_back"). The disk always gets what the host evicts.
        host_bandwidth: Bytes per second between host and device.
        disk_bandwidth: Bytes per second from disk to host.
        host_latency_s: Seconds before the first byte from the host, once per prefix.
        disk_latency_s: The same from disk.
        prefill_tokens_per_s: How fast the model computes prompts.
    """

    host_bytes: int
    disk_bytes: int = 0
    disk_path: Path | None = None
    write_policy: Literal["write_through", "write_back"] = "write_back"
    host_bandwidth: float = 12e9
    disk_bandwidth: float = 1.5e9
    host_latency_s: float = 50e-6
    disk_latency_s: float = 500e-6
    prefill_tokens_per_s: float = 10_000.0

    def __post_init__(self) -> None:
        if self.host_bytes < 1 or self.disk_bytes < 0:
            raise ConfigError(
                f"the tiers have {self.host_bytes} bytes of host memory and {self.disk_bytes} of "
                "disk space",
                fix="give at least one block of host memory, which the disk tier needs, too",
            )
        if self.write_policy not in ("write_through", "write_back"):
            raise ConfigError(
                f"write_policy is {self.write_policy!r}", fix="use write_through or write_back"
            )
        for name in ("host_bandwidth", "disk_bandwidth", "prefill_tokens_per_s"):
            self._above_zero(name)
        for name in ("host_latency_s", "disk_latency_s"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix="use 0 or more")

    def _above_zero(self, name: str) -> None:
        if not getattr(self, name) > 0.0:
            raise ConfigError(f"{name} is {getattr(self, name)}", fix="use a number above 0")


@dataclass(frozen=True)
class ReadOrCompute:
    """Decides which leading part of a prefix is read from the tiers.

    Attributes:
        config: Bandwidths, latencies and the speed of computing.
        block_bytes: Keys and values of one block over all layers.
        block_size: Positions of one block.
    """

    config: TierConfig
    block_bytes: int
    block_size: int

    def seconds_per_block(self, tier: Tier) -> float:
        """Return the time to read a block; one on disk goes through the host."""
        from_host_s = self.block_bytes / self.config.host_bandwidth
        if tier is Tier.HOST:
            return from_host_s
        return from_host_s + self.block_bytes / self.config.disk_bandwidth

    def num_to_read(self, tiers: Sequence[Tier], stops: Collection[int] | None = None) -> int:
        """Return how many blocks of a chain to read so that the rest is computed soonest.

        Args:
            tiers: Where each block is, in order of position.
            stops: Numbers of blocks after which computing can go on; none means any.
        """
        latencies_s = {
            Tier.HOST: self.config.host_latency_s,
            Tier.DISK: self.config.disk_latency_s,
        }
        compute_s = self.block_size / self.config.prefill_tokens_per_s
        best, most_saved_s, saved_s = 0, 0.0, 0.0
        for num_blocks, tier in enumerate(tiers, start=1):
            saved_s += compute_s - self.seconds_per_block(tier) - latencies_s.pop(tier, 0.0)
            if saved_s > most_saved_s and (stops is None or num_blocks in stops):
                best, most_saved_s = num_blocks, saved_s
        return best
