"""Public models by the names that measurements use.

The models themselves are ``weft.spec.zoo``'s. Here are aliases, and a few old models whose files no
family reads: of those only what costs time or memory is kept.
"""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from importlib import resources
from typing import Any

from weft.core.errors import ConfigError
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec, zoo


@cache
def model_names() -> tuple[str, ...]:
    """Return all names, aliases included."""
    table = _table()
    return (*zoo.names(), *table["aliases"], *table["shapes"])


@cache
def public_model(name: str) -> ModelSpec:
    """Return a public decoder by name or alias; case does not matter.

    >>> public_model("DeepSeek-R1-0528").num_layers
    61

    Raises:
        ConfigError: an unknown name, or no decoder; lists the nearest.
    """
    table = _table()
    plain = name.strip().lower()
    shapes = {key.lower(): key for key in table["shapes"]}
    if plain in shapes:
        return _spec(plain, table["shapes"][shapes[plain]])
    aliases = {key.lower(): target for key, target in table["aliases"].items()}
    known = aliases.get(plain, plain)
    spec = zoo.spec(known) if known in zoo.names() else None
    if not isinstance(spec, ModelSpec):
        nearest = difflib.get_close_matches(plain, model_names(), n=4, cutoff=0.3)
        raise ConfigError(
            f"no decoder is called {name!r}",
            fix=f"nearest: {', '.join(nearest)}; or give the config.json of your own",
        )
    return spec


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = resources.files("weft.plan.data").joinpath("models.toml").read_text("utf-8")
    return tomllib.loads(text)


def _spec(name: str, entry: dict[str, Any]) -> ModelSpec:
    num_heads = entry["num_heads"]
    mixer = AttentionSpec(
        num_heads=num_heads,
        num_kv_heads=entry.get("num_kv_heads", num_heads),
        head_dim=entry.get("head_dim", entry["dim"] // num_heads),
    )
    layer = LayerSpec(mixer, MLPSpec(entry["ffn_dim"], gated=entry["gated"]))
    return ModelSpec(
        family=name,
        vocab_size=entry["vocab_size"],
        dim=entry["dim"],
        layers=(layer,) * entry["num_layers"],
        context_length=entry["context_length"],
    )
