"""Which backend continues the sequences of a cache: the cache's policy decides."""

from __future__ import annotations

from weft.nn.backends.paged import PagedBackend, PagedBatch
from weft.nn.kv_cache import KVCache
from weft.nn.long_context.heavy_hitter import HeavyHitterBackend
from weft.nn.long_context.policy import HeavyHitter, SinkWindow
from weft.nn.long_context.sink_window import SinkWindowBackend


def paged_backend(cache: KVCache, batch: PagedBatch) -> PagedBackend:
    """Return the backend of one engine step."""
    if isinstance(cache.policy, SinkWindow):
        return SinkWindowBackend(cache, batch, cache.policy)
    if isinstance(cache.policy, HeavyHitter):
        return HeavyHitterBackend(cache, batch, cache.policy)
    return PagedBackend(cache, batch)
