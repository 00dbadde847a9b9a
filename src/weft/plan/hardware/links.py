"""Wires between devices: the data sheet's rate, and what collectives reach on them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from weft.core.errors import ConfigError, did_you_mean

# The low-latency protocols of collective libraries send a flag with every word and begin without
# a handshake: about a quarter of the rate, about a third of the wait.
EAGER_RATE = 0.25
EAGER_START = 0.35


@dataclass(frozen=True)
class Link:
    """What one device sends over, one way.

    A message takes ``min(start·0.35 + S/(rate/4), start + S/rate)``: two regimes, as collective
    libraries choose a low-latency protocol for short messages.

    Attributes:
        name: In the catalogue.
        bandwidth: Bytes per second one way per device, by data sheet.
        share: Reached share of it.
        start_s: Seconds before the first byte of a large message.
        hop_s: Seconds per further step of a collective.
        source: Where the figures come from.
    """

    name: str
    bandwidth: float
    share: float = 1.0
    start_s: float = 0.0
    hop_s: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        if self.bandwidth <= 0.0 or not 0.0 < self.share <= 1.0:
            raise ConfigError(
                f"link {self.name}: bandwidth {self.bandwidth}, share {self.share}",
                fix="give a bandwidth above 0 and a share in (0, 1]",
            )

    @property
    def rate(self) -> float:
        """Reached bytes per second."""
        return self.bandwidth * self.share

    def seconds(self, num_bytes: float, *, steps: int = 1) -> float:
        """Return the time to push ``num_bytes`` through in ``steps`` dependent steps."""
        if num_bytes <= 0.0 or steps <= 0:
            return 0.0
        hops_s = (steps - 1) * self.hop_s
        eager = EAGER_START * (self.start_s + hops_s) + num_bytes / (EAGER_RATE * self.rate)
        return min(eager, self.start_s + hops_s + num_bytes / self.rate)

    def with_bandwidth(self, bandwidth: float, source: str) -> Link:
        """Return the same kind of link at another rate."""
        return replace(self, bandwidth=bandwidth, source=source)


@cache
def links() -> dict[str, Link]:
    """Return the catalogue of links by name."""
    text = resources.files("weft.plan.hardware").joinpath("links.toml").read_text("utf-8")
    table = tomllib.loads(text)
    defaults = table.pop("defaults")
    return {name: Link(name=name, **{**defaults, **entry}) for name, entry in table.items()}


def link(name: str) -> Link:
    """Return a link of the catalogue.

    Raises:
        ConfigError: an unknown name; lists the nearest.
    """
    known = links()
    if name not in known:
        raise ConfigError(f"no link is called {name!r}", fix=did_you_mean(name, known))
    return known[name]
