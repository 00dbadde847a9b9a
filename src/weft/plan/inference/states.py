"""Caches of linear attention: a state per sequence against keys and values per token."""

from __future__ import annotations

import math
from dataclasses import dataclass

from weft.core.errors import ConfigError
from weft.plan.ops import ELEMENT_BYTES
from weft.spec import CacheKinds, ModelSpec

_STATE_BYTES = {"float32": 4.0}


@dataclass(frozen=True)
class CacheSize:
    """What a sequence keeps on one device.

    Attributes:
        fixed_bytes: Whatever its length.
        bytes_per_token: For every token.
    """

    fixed_bytes: float
    bytes_per_token: float

    def at(self, num_tokens: int) -> float:
        """Return the bytes of a sequence of this length."""
        return self.fixed_bytes + num_tokens * self.bytes_per_token


def mixer_cache(
    mixer: CacheKinds, *, dtype: str = "bfloat16", tensor: int = 1, float32_state: bool = False
) -> CacheSize:
    """Return one layer's cache.

    Args:
        mixer: The layer's mixer.
        dtype: Of keys, values and states in the model's own type.
        tensor: Devices that share heads; a latent is copied, not shared.
        float32_state: Keep the states whose sums would lose digits in float32, as their spec asks;
            else they are stored in ``dtype``, as some engines do.
    """
    if tensor < 1:
        raise ConfigError(f"tensor is {tensor}", fix="use at least 1")
    size = ELEMENT_BYTES[dtype]
    fixed = sum(
        state.num_values * (_STATE_BYTES.get(state.dtype, size) if float32_state else size)
        for state in mixer.states.values()
    )
    per_token = sum(
        math.prod(shape) / _copies(name, shape, tensor) for name, shape in mixer.token_cache.items()
    )
    return CacheSize(fixed / tensor, per_token * size)


def model_cache(spec: ModelSpec, *, dtype: str = "bfloat16", tensor: int = 1) -> CacheSize:
    """Return the cache of one sequence over all layers."""
    sizes = [mixer_cache(layer.mixer, dtype=dtype, tensor=tensor) for layer in spec.layers]
    return CacheSize(sum(s.fixed_bytes for s in sizes), sum(s.bytes_per_token for s in sizes))


def crossover_tokens(state: CacheSize, cache: CacheSize) -> int | None:
    """Return the first length at which a state is no larger than a cache; none if never."""
    if cache.bytes_per_token <= state.bytes_per_token:
        return None
    excess = state.fixed_bytes - cache.fixed_bytes
    return max(0, math.ceil(excess / (cache.bytes_per_token - state.bytes_per_token)))


def snapshot_bytes_per_token(state: CacheSize, interval: int) -> float:
    """Return the price of a prefix cache that keeps a state every ``interval`` tokens."""
    if interval < 1:
        raise ConfigError(f"interval is {interval}", fix="use at least 1")
    return state.fixed_bytes / interval


def _copies(name: str, shape: tuple[int, ...], tensor: int) -> float:
    return min(tensor, shape[0]) if name in ("keys", "values") else 1.0
