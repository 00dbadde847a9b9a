"""Where two specifications differ, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any


def differences(left: Any, right: Any, path: str = "") -> Iterator[str]:
    """Yield every place where two descriptions differ, with both values.

    >>> from weft.spec.rotary import RotarySpec
    >>> list(differences(RotarySpec(), RotarySpec(theta=5e5)))
    ['theta is 10000.0, not 500000.0']
    """
    if is_dataclass(left) and type(left) is type(right):
        for field in fields(left):
            inner = f"{path}.{field.name}" if path else field.name
            yield from differences(getattr(left, field.name), getattr(right, field.name), inner)
    elif isinstance(left, tuple) and isinstance(right, tuple) and len(left) == len(right):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
    elif left != right:
        yield f"{path} is {left!r}, not {right!r}"
