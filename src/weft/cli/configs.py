"""How verbs assemble their configuration: recipe or TOML file first, then flags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from weft.core import config as configs
from weft.core.errors import ConfigError, did_you_mean

ConfigT = TypeVar("ConfigT")

# Everything that is not an option of the verb itself: `--section.key value` pairs.
Overrides = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]


def assemble(
    base: ConfigT, source: str | None, overrides: Sequence[str], /, **given: Any
) -> ConfigT:
    """Return ``base`` with a TOML file, then flags, then the verb's own options on top.

    Args:
        base: The recipe's configuration.
        source: A ``.toml`` file, or none.
        overrides: ``--section.key value`` tokens.
        given: Options of the verb by key; those that are ``None`` were not given.
    """
    config = base if source is None else configs.load_toml(base, Path(source))
    flags: dict[str, Any] = dict(configs.parse_flags(overrides))
    flags |= {key: value for key, value in given.items() if value is not None}
    return configs.override(config, flags)


def recipe(name: str, kind: type[ConfigT] | None = None) -> Any:
    """Return a recipe's configuration by name.

    Raises:
        ConfigError: there is no such recipe, or it belongs to another verb.
    """
    from weft.recipes import RECIPES

    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}", fix=did_you_mean(name, RECIPES))
    config = RECIPES[name].build()
    if kind is not None and not isinstance(config, kind):
        raise ConfigError(
            f"recipe {name!r} is a {type(config).__name__}, not a {kind.__name__}",
            fix="`weft recipes ls` shows which verb each recipe belongs to",
        )
    return config


# A verb's optional first argument. It must take flags too: `weft train --steps 5` has none.
Source = Annotated[str | None, Parameter(allow_leading_hyphen=True)]


def split_source(
    source: str | None, overrides: Sequence[str]
) -> tuple[str | None, tuple[str, ...]]:
    """Put a flag that was taken for the first argument back among the overrides."""
    if source is not None and source.startswith("--"):
        return None, (source, *overrides)
    return source, tuple(overrides)


def base_and_file(source: str | None, default: str) -> tuple[Any, str | None]:
    """Split a verb's first argument into (recipe configuration, TOML file or none)."""
    if source is None:
        return recipe(default), None
    if source.endswith(".toml"):
        return recipe(default), source
    return recipe(source, type(recipe(default))), None
