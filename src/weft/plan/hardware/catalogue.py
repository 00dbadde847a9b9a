"""The devices of ``devices.toml`` as ``HardwareSpec``, found by name or alias."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import fields
from functools import cache
from importlib import resources
from typing import Any

from weft.core.errors import ConfigError
from weft.spec.hardware import HardwareSpec

_SHARES = ("matmul_share", "attention_share", "memory_share", "kernel_start_s")
_FIELDS = tuple(
    field.name
    for field in fields(HardwareSpec)
    if field.name not in ("name", "num_threads", "grade", "sources")
)
_NUM_NEAREST = 4


@cache
def devices() -> dict[str, HardwareSpec]:
    """Return every device of the catalogue by its name."""
    table, defaults = _table()
    return {name: _device(name, table, defaults) for name in table}


def device(name: str) -> HardwareSpec:
    """Return a device by name or alias; case and ``_`` against ``-`` do not matter.

    >>> device("h100").memory_bytes
    80000000000

    Raises:
        ConfigError: an unknown name; lists the nearest.
    """
    names = _names()
    found = names.get(_plain(name))
    if found is None:
        nearest = difflib.get_close_matches(_plain(name), names, n=8, cutoff=0.3)
        listed = list(dict.fromkeys(names[key] for key in nearest))[:_NUM_NEAREST]
        raise ConfigError(
            f"no device is called {name!r}",
            fix=f"nearest: {', '.join(listed or sorted(devices()))}; "
            "or give a HardwareSpec of your own",
        )
    return devices()[found]


@cache
def _names() -> dict[str, str]:
    """Canonical name by plain name or alias."""
    table, _ = _table()
    names = {_plain(name): name for name in table}
    for name, entry in table.items():
        names.update({_plain(alias): name for alias in entry.get("aliases", ())})
    return names


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")


@cache
def _table() -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    text = resources.files("weft.plan.hardware").joinpath("devices.toml").read_text("utf-8")
    table = tomllib.loads(text)
    defaults = table.pop("defaults")
    return table, defaults


def _device(name: str, table: dict[str, dict[str, Any]], defaults: dict[str, Any]) -> HardwareSpec:
    """Merge defaults, the relatives named by ``like`` and the entry itself, in this order."""
    merged: dict[str, Any] = {key: defaults[key] for key in _FIELDS if key in defaults}
    sources = dict.fromkeys(_SHARES, defaults["share_source"])
    for entry in _lineage(name, table):
        merged["matmul_share"] = {**merged["matmul_share"], **entry.get("matmul_share", {})}
        merged.update({k: v for k, v in entry.items() if k in _FIELDS and k != "matmul_share"})
        source, share_source = entry.get("source"), entry.get("share_source")
        for key in _FIELDS:
            told = share_source if key in _SHARES else source
            if told is not None and (key in entry or key not in sources):
                sources[key] = told
        sources.update(entry.get("sources", {}))
    peaks = merged["matmul_flops"]
    merged["matmul_share"] = {k: v for k, v in merged["matmul_share"].items() if k in peaks}
    return HardwareSpec(name=name, grade="spec", sources=sources, **merged)


def _lineage(name: str, table: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    entry = table[name]
    like = entry.get("like")
    return [entry] if like is None else [*_lineage(like, table), entry]
