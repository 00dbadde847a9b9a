"""What is to be run, independent of who runs it."""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import ConfigError


@dataclass(frozen=True)
class Job:
    """One weft command on one or several machines.

    Attributes:
        arguments: What follows ``weft``, such as ("train", "my.toml").
        name: For people and queues.
        num_nodes: Machines.
        processes_per_node: Processes on each, usually one a device.
        max_restarts: How often torchrun starts again after a process died.
        time_limit_minutes: Wall-clock limit asked of the queue.
    """

    arguments: tuple[str, ...]
    name: str = "weft"
    num_nodes: int = 1
    processes_per_node: int = 1
    max_restarts: int = 0
    time_limit_minutes: int = 60

    def __post_init__(self) -> None:
        for field in ("num_nodes", "processes_per_node", "time_limit_minutes"):
            if getattr(self, field) < 1:
                raise ConfigError(f"launch.{field} is {getattr(self, field)}; at least 1 is needed")
        if not self.arguments:
            raise ConfigError("there is no command to launch", fix="give one, such as train")
