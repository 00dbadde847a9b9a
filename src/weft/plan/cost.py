"""What one piece of work takes: seconds, what bounds them, and the pieces it is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from weft.spec.hardware import Grade

Bound = Literal["compute", "memory", "network", "latency", "mixed"]
_GRADES: tuple[Grade, ...] = ("measured", "fit", "spec")


@dataclass(frozen=True)
class Cost:
    """Time and traffic of a piece of work on one device.

    Attributes:
        name: For people.
        seconds: How long it takes.
        flops: Floating-point operations, a multiply-add counting two.
        memory_bytes: Bytes moved between memory and chip.
        network_bytes: Bytes this device sends.
        bound: What the time is spent on.
        grade: The weakest grade of the figures behind it.
        children: What it is the sum of.
    """

    name: str
    seconds: float
    flops: float = 0.0
    memory_bytes: float = 0.0
    network_bytes: float = 0.0
    bound: Bound = "mixed"
    grade: Grade = "spec"
    children: tuple[Cost, ...] = ()

    @classmethod
    def total(cls, name: str, parts: Iterable[Cost]) -> Cost:
        """Return the sum of parts that run one after the other, keeping them."""
        children = tuple(parts)
        bounds = {part.bound for part in children}
        grades = [part.grade for part in children] or ["spec"]
        return cls(
            name=name,
            seconds=sum(part.seconds for part in children),
            flops=sum(part.flops for part in children),
            memory_bytes=sum(part.memory_bytes for part in children),
            network_bytes=sum(part.network_bytes for part in children),
            bound=bounds.pop() if len(bounds) == 1 else "mixed",
            grade=max(grades, key=_GRADES.index),
            children=children,
        )
