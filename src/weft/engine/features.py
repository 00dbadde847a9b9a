"""Which features of an engine cannot be combined, and why: refused at once, never silently wrong.

A feature that some other one rules out adds a line to ``USED`` (does this engine use it?) and one
to ``REFUSED`` for each such pair. Everything not listed there works together; the tests below
``tests/engine/features`` hold the pairs equal to serving without the feature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from weft.core.errors import UnsupportedError
from weft.engine.config import EngineConfig
from weft.nn.long_context.policy import HeavyHitter, SinkWindow
from weft.spec import ModelSpec

Predicate = Callable[[EngineConfig, ModelSpec], bool]


@dataclass(frozen=True)
class Refusal:
    """Why two features do not go together, and which setting gives one of them up."""

    reason: str
    fix: str


def keeps_rings(config: EngineConfig, spec: ModelSpec) -> bool:
    """Return whether sequences write their blocks again and again, one window each."""
    return config.cache_spec(spec).window is not None and not config.caches_prefixes(spec)


USED: Mapping[str, Predicate] = {
    "cache": lambda config, spec: config.caches_prefixes(spec),
    "overlap": lambda config, spec: config.overlap_depth > 0,
    "deterministic": lambda config, spec: config.deterministic,
    "states": lambda config, spec: config.cache_spec(spec).has_states,
    "rings": keeps_rings,
    "quantized_kv": lambda config, spec: config.cache_codes is not None,
    "sink_window": lambda config, spec: isinstance(config.long_context, SinkWindow),
    "heavy_hitter": lambda config, spec: isinstance(config.long_context, HeavyHitter),
    "adapters": lambda config, spec: config.adapters is not None,
    "offload": lambda config, spec: config.tiers is not None,
    "cuda_graphs": lambda config, spec: config.cuda_graphs,
    "tensor_parallel": lambda config, spec: config.parallel.num_ranks > 1,
    "speculation": lambda config, spec: config.speculation is not None,
    "rejection": lambda config, spec: (
        config.speculation is not None and config.speculation.acceptance == "rejection"
    ),
}
_WITHOUT_CACHE = "set enable_prefix_cache to false, or long_context to none"

REFUSED: Mapping[tuple[str, str], Refusal] = {
    ("adapters", "tensor_parallel"): Refusal(
        "only the first rank would add the updates", "set parallel.tensor to 1, or adapters to none"
    ),
    ("offload", "tensor_parallel"): Refusal(
        "blocks that one rank cannot read would have to be computed again by all",
        "set parallel.tensor to 1, or tiers to none",
    ),
    ("heavy_hitter", "tensor_parallel"): Refusal(
        "ranks that share a key-value head would evict different tokens of it",
        "set parallel.tensor to 1, or long_context to none",
    ),
    ("cuda_graphs", "tensor_parallel"): Refusal(
        "sums over ranks are not recorded", "set parallel.tensor to 1, or cuda_graphs to false"
    ),
    ("cache", "sink_window"): Refusal(
        "the ring writes over the blocks that prefixes would be shared by", _WITHOUT_CACHE
    ),
    ("cache", "heavy_hitter"): Refusal(
        "later tokens write over what a prefix left, and no copy of it is kept", _WITHOUT_CACHE
    ),
    ("quantized_kv", "heavy_hitter"): Refusal(
        "keys and values are states there, which are not quantized", 'set kv_dtype to "auto"'
    ),
    ("deterministic", "heavy_hitter"): Refusal(
        "sums of weights have no fixed order, and the last bit may decide what is evicted",
        "set deterministic to false, or long_context to none",
    ),
    ("rejection", "deterministic"): Refusal(
        "which tokens are drawn depends on when there were guesses",
        'set speculation.acceptance to "same_draw", or deterministic to false',
    ),
    ("speculation", "overlap"): Refusal(
        "how many guesses hold is not known when the next step is planned",
        "set overlap_depth to 0, or speculation to none",
    ),
    ("speculation", "states"): Refusal(
        "recurrent states cannot take back wrong guesses", "set speculation to none"
    ),
    ("speculation", "rings"): Refusal(
        "wrong guesses would write over blocks that are still read",
        "set enable_prefix_cache to true, or speculation to none",
    ),
    ("speculation", "tensor_parallel"): Refusal(
        "guesses are made on the first rank only",
        "set parallel.tensor to 1, or speculation to none",
    ),
}


def used_features(config: EngineConfig, spec: ModelSpec) -> frozenset[str]:
    """Return the names of the features an engine would use."""
    return frozenset(name for name, uses in USED.items() if uses(config, spec))


def check_features(config: EngineConfig, spec: ModelSpec) -> None:
    """Refuse pairs of features that do not work together.

    Raises:
        UnsupportedError: the first such pair.
    """
    used = used_features(config, spec)
    for (first, second), refusal in REFUSED.items():
        if first in used and second in used:
            raise UnsupportedError(
                f"{first} and {second} do not go together: {refusal.reason}", fix=refusal.fix
            )
