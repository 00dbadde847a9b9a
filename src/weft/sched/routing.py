"""Which replica a request goes to.

A policy sees the request and what the router knows of every replica that may take it. The serving
router and the simulator use the same objects. Policies that remember are fed by ``choose`` alone.

- ``RoundRobin``: in turn, whatever the replicas do.
- ``LeastRequests``: the shortest queue, running requests included.
- ``LeastKV``: the emptiest cache, then the shortest queue; long contexts weigh more than short.
- ``PrefixAware``: where the longest beginning of the prompt was sent before, unless that replica
  is far busier than the least busy one (cache-aware routing as in SGLang's router and Preble,
  Srivatsa et al. 2024, arXiv:2407.00023).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from weft.core.errors import ConfigError
from weft.sched.prefix import block_key, root_key
from weft.spec.request import Request


@dataclass(frozen=True)
class ReplicaLoad:
    """What a router knows of one replica.

    Attributes:
        num_requests: Waiting and running.
        kv_usage: Fraction of the cache's blocks that sequences hold.
    """

    num_requests: int
    kv_usage: float = 0.0


class RoutingPolicy(Protocol):
    """Chooses among replicas, named by number."""

    def choose(self, request: Request, loads: Mapping[int, ReplicaLoad]) -> int:
        """Return one of the keys of ``loads``, of which there is at least one."""
        ...

    def forget(self, replica: int) -> None:
        """Take note that a replica lost its cache."""
        ...


class _Memoryless:
    def forget(self, replica: int) -> None:
        """Do nothing: no replica is remembered."""


class RoundRobin(_Memoryless):
    """Each replica in turn."""

    def __init__(self) -> None:
        self._last = -1

    def choose(self, request: Request, loads: Mapping[int, ReplicaLoad]) -> int:
        """Return the next number after the last choice, cyclically."""
        later = [replica for replica in loads if replica > self._last]
        self._last = min(later or loads)
        return self._last


class LeastRequests(_Memoryless):
    """The replica with the fewest requests; ties go to the lower number."""

    def choose(self, request: Request, loads: Mapping[int, ReplicaLoad]) -> int:
        """Return the shortest queue."""
        return min(loads, key=lambda replica: (loads[replica].num_requests, replica))


class LeastKV(_Memoryless):
    """The replica with the emptiest cache; then the one with the fewest requests."""

    def choose(self, request: Request, loads: Mapping[int, ReplicaLoad]) -> int:
        """Return the emptiest cache."""
        return min(loads, key=lambda r: (round(loads[r].kv_usage, 3), loads[r].num_requests, r))


class PrefixAware:
    """The replica that has seen most of the prompt, if it is not overloaded.

    Args:
        block_size: Tokens per remembered block; beginnings match in whole blocks.
        num_blocks: Blocks remembered per replica, about as many as its cache holds.
        max_ratio: A replica is overloaded if it has more requests than this times the least ...
        max_excess: ... and so many more besides.
    """

    def __init__(
        self,
        *,
        block_size: int = 64,
        num_blocks: int = 16_384,
        max_ratio: float = 1.5,
        max_excess: int = 8,
    ) -> None:
        if min(block_size, num_blocks) < 1 or max_ratio < 1.0 or max_excess < 0:
            raise ConfigError(
                f"block_size {block_size}, num_blocks {num_blocks}, max_ratio {max_ratio}, "
                f"max_excess {max_excess}",
                fix="use sizes of at least 1, a ratio of at least 1 and an excess of at least 0",
            )
        self.block_size = block_size
        self.num_blocks = num_blocks
        self.max_ratio = max_ratio
        self.max_excess = max_excess
        self._seen: dict[int, OrderedDict[bytes, None]] = {}

    def choose(self, request: Request, loads: Mapping[int, ReplicaLoad]) -> int:
        """Return the best match among the replicas that are not overloaded."""
        keys = self._keys(request)
        least = min(load.num_requests for load in loads.values())
        limit = self.max_ratio * least + self.max_excess
        allowed = [replica for replica in loads if loads[replica].num_requests <= limit]
        chosen = min(
            allowed,
            key=lambda r: (-self._num_matched(r, keys), loads[r].num_requests, r),
        )
        self._remember(chosen, keys)
        return chosen

    def forget(self, replica: int) -> None:
        """Drop what the replica has seen."""
        self._seen.pop(replica, None)

    def _keys(self, request: Request) -> list[bytes]:
        tokens, size = request.tokens, self.block_size
        keys = [root_key(request.cache_salt)]
        for start in range(0, len(tokens) - size + 1, size):
            keys.append(block_key(keys[-1], tokens[start : start + size]))
        return keys[1:]

    def _num_matched(self, replica: int, keys: list[bytes]) -> int:
        seen = self._seen.get(replica, ())
        return next((i for i, key in enumerate(keys) if key not in seen), len(keys))

    def _remember(self, replica: int, keys: list[bytes]) -> None:
        seen = self._seen.setdefault(replica, OrderedDict())
        # Last blocks first, so that a beginning is forgotten after what extends it.
        for key in reversed(keys):
            seen[key] = None
            seen.move_to_end(key)
        while len(seen) > self.num_blocks:
            seen.popitem(last=False)
