"""Keys and values that need not be computed: prefix cache, and caches fetched from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace

from weft.core.errors import ConfigError
from weft.plan.inference.disaggregate import prefill_seconds, transfer_bytes
from weft.plan.inference.load import Traffic, estimate_max_load
from weft.plan.inference.step import StepModel


@dataclass(frozen=True)
class PrefixGain:
    """What cached prompt tokens are worth.

    Attributes:
        prefill_speed_up: Time of a prompt without over with the cache.
        throughput_gain: Most output tokens per second with over without.
        saved_s: Device time saved per request.
    """

    prefill_speed_up: float
    throughput_gain: float
    saved_s: float


def prefix_gain(model: StepModel, traffic: Traffic) -> PrefixGain:
    """Compare traffic with its cached tokens against the same without a cache."""
    bare = replace(traffic, num_cached_tokens=0)
    without_s, with_s = prefill_seconds(model, bare), prefill_seconds(model, traffic)
    rates = [estimate_max_load(model, t).output_tokens_per_s for t in (bare, traffic)]
    return PrefixGain(without_s / with_s, rates[1] / rates[0], without_s - with_s)


@dataclass(frozen=True)
class FetchChoice:
    """Moving a prompt's keys and values against computing them.

    Attributes:
        fetch_s: Time to move them, all devices at once.
        compute_s: Time to compute them.
        layerwise_s: Time if a layer's move overlaps the computation of the layer before: what is
            left when a part is fetched and the rest is computed at the same time.
    """

    fetch_s: float
    compute_s: float
    layerwise_s: float

    @property
    def fetch_pays(self) -> bool:
        """Whether moving is faster."""
        return self.fetch_s < self.compute_s


def fetch_or_compute(
    model: StepModel, num_tokens: int, *, bandwidth: float, start_s: float = 0.0
) -> FetchChoice:
    """Decide whether to fetch a prefix or to compute it again.

    Fetching and computing different parts side by side takes their harmonic sum.

    Args:
        model: Where it would be computed.
        num_tokens: Of the prefix.
        bandwidth: Bytes per second per device.
        start_s: Seconds before the first byte.
    """
    if bandwidth <= 0.0 or num_tokens < 1:
        raise ConfigError(
            f"{num_tokens} tokens over {bandwidth} bytes/s", fix="use numbers above 0"
        )
    traffic = Traffic(num_tokens, 1)
    fetch_s = start_s + transfer_bytes(model, traffic) / bandwidth
    compute_s = prefill_seconds(model, traffic)
    return FetchChoice(fetch_s, compute_s, 1.0 / (1.0 / fetch_s + 1.0 / compute_s))


def fetch_crossover(
    model: StepModel, *, bandwidth: float, start_s: float = 0.0, most_tokens: int = 1 << 20
) -> int | None:
    """Return the shortest prefix that is faster to fetch; none if no length up to the limit is.

    Computing grows faster than linearly with the length, moving linearly, so there is one.
    """
    low, high = 1, most_tokens
    if not fetch_or_compute(model, high, bandwidth=bandwidth, start_s=start_s).fetch_pays:
        return None
    while low < high:
        middle = (low + high) // 2
        if fetch_or_compute(model, middle, bandwidth=bandwidth, start_s=start_s).fetch_pays:
            high = middle
        else:
            low = middle + 1
    return low
