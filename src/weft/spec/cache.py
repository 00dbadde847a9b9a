"""What a mixer keeps between steps: so much per token, so much per sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class StateSpec:
    """One tensor that a recurrent part carries from token to token.

    Attributes:
        shape: Of one sequence's state.
        dtype: "float32" where sums would lose digits, "model" for the model's own type.
    """

    shape: tuple[int, ...]
    dtype: Literal["float32", "model"] = "model"

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)


class CacheKinds:
    """What a part of a layer keeps; parts that keep nothing inherit this as it is.

    ``token_cache`` grows with the sequence: name and shape per token. ``states`` does not grow:
    name and state per sequence.
    """

    @property
    def token_cache(self) -> Mapping[str, tuple[int, ...]]:
        """Name and shape per token of what attention reads again."""
        return {}

    @property
    def rotated_cache(self) -> Mapping[str, int]:
        """How many of the last numbers of what is kept by a name are rotated keys beside others."""
        return {}

    @property
    def states(self) -> Mapping[str, StateSpec]:
        """Name and state per sequence of what a recurrence carries."""
        return {}

    @property
    def cache_values_per_token(self) -> int:
        """How many numbers the engine keeps per token."""
        return sum(math.prod(shape) for shape in self.token_cache.values())

    @property
    def state_values(self) -> int:
        """How many numbers the engine keeps per sequence, whatever its length."""
        return sum(state.num_values for state in self.states.values())
