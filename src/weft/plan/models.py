"""Public models as ``ModelSpec``, by name, for planning without their files.

Only what costs time or memory is kept: sizes, sharing of heads and experts, windows. A plan for
weights you have should read their config.json (``weft.spec.families``).
"""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from importlib import resources
from typing import Any

from weft.core.errors import ConfigError
from weft.spec import (
    AttentionSpec,
    LayerSpec,
    MLASpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
)


def model_names() -> tuple[str, ...]:
    """Return the names of the catalogue, without aliases."""
    return tuple(_table())


@cache
def public_model(name: str) -> ModelSpec:
    """Return a public model by name or alias; case does not matter.

    >>> public_model("deepseek-r1").num_layers
    61

    Raises:
        ConfigError: an unknown name; lists the nearest.
    """
    names = {alias.lower(): key for key, entry in _table().items() for alias in _names(key, entry)}
    key = names.get(name.strip().lower())
    if key is None:
        nearest = difflib.get_close_matches(name.lower(), names, n=4, cutoff=0.3)
        listed = dict.fromkeys(names[close] for close in nearest) or model_names()
        raise ConfigError(
            f"no model is called {name!r}",
            fix=f"nearest: {', '.join(listed)}; or give the config.json of your own",
        )
    return _spec(key, _table()[key])


def _names(key: str, entry: dict[str, Any]) -> list[str]:
    return [key, *entry.get("aliases", ())]


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = resources.files("weft.plan.data").joinpath("models.toml").read_text("utf-8")
    return tomllib.loads(text)


def _spec(name: str, entry: dict[str, Any]) -> ModelSpec:
    return ModelSpec(
        family=name.lower(),
        vocab_size=entry["vocab_size"],
        dim=entry["dim"],
        layers=tuple(_layer(entry, index) for index in range(entry["num_layers"])),
        tie_embeddings=entry.get("tie_embeddings", False),
        context_length=entry["context_length"],
    )


def _layer(entry: dict[str, Any], index: int) -> LayerSpec:
    mixer = _latent(entry) if "kv_latent_dim" in entry else _attention(entry, index)
    dense = "num_experts" not in entry or index < entry.get("num_dense_layers", 0)
    return LayerSpec(mixer, _mlp(entry, entry["ffn_dim"]) if dense else _experts(entry))


def _attention(entry: dict[str, Any], index: int) -> AttentionSpec:
    num_heads = entry["num_heads"]
    windowed = "window" in entry and index % entry["window_every"] == 0
    return AttentionSpec(
        num_heads=num_heads,
        num_kv_heads=entry.get("num_kv_heads", num_heads),
        head_dim=entry.get("head_dim", entry["dim"] // num_heads),
        qkv_bias=entry.get("qkv_bias", False),
        window=entry["window"] if windowed else None,
    )


def _latent(entry: dict[str, Any]) -> MLASpec:
    return MLASpec(
        num_heads=entry["num_heads"],
        kv_latent_dim=entry["kv_latent_dim"],
        nope_head_dim=entry["nope_head_dim"],
        rope_head_dim=entry["rope_head_dim"],
        value_head_dim=entry["value_head_dim"],
        query_latent_dim=entry.get("query_latent_dim"),
    )


def _mlp(entry: dict[str, Any], hidden_dim: int) -> MLPSpec:
    return MLPSpec(hidden_dim, gated=entry.get("gated", True))


def _experts(entry: dict[str, Any]) -> MoESpec:
    num_shared = entry.get("num_shared", 0)
    return MoESpec(
        num_experts=entry["num_experts"],
        top_k=entry["top_k"],
        expert=_mlp(entry, entry["expert_dim"]),
        shared=_mlp(entry, num_shared * entry["expert_dim"]) if num_shared else None,
    )
