"""Frozen dataclasses ↔ TOML ↔ ``--section.key value`` flags.

A configuration is a frozen dataclass whose fields are numbers, strings, booleans, paths,
tuples of those, literals or further dataclasses. Layers are merged in this order, the last
one wins: dataclass defaults, recipe, TOML file, flags. A key that does not exist is an error
that names the nearest one that does. Field help is the ``Attributes:`` section of the class's
docstring, so that TOML comments and ``--help`` say the same.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from weft.core.errors import ConfigError, InputFileError, did_you_mean

ConfigT = TypeVar("ConfigT")

_MULTIPLIERS = {"": 1, "k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class Field:
    """One leaf of a configuration: dotted key, type, value and help text."""

    key: str
    annotation: Any
    value: Any
    help: str


def from_mapping(cls: type[ConfigT], mapping: Mapping[str, Any], *, source: str = "") -> ConfigT:
    """Build ``cls`` from nested plain data; missing keys take the dataclass defaults.

    Raises:
        ConfigError: unknown key, wrong type, missing required key.
    """
    return _build(cls, None, mapping, prefix="", source=source)


def merge(config: ConfigT, mapping: Mapping[str, Any], *, source: str = "") -> ConfigT:
    """Return ``config`` with the nested keys of ``mapping`` replaced."""
    return _build(type(config), config, mapping, prefix="", source=source)


def load_toml(base: ConfigT, path: Path) -> ConfigT:
    """Return ``base`` with the values of a TOML file on top.

    Raises:
        InputFileError: the file is missing. ConfigError: it is not TOML or has unknown keys.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFileError(
            f"there is no configuration file {str(path)!r}",
            fix="`weft recipes ls` lists configurations; `weft recipes cp NAME FILE` copies one",
        )
    try:
        mapping = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", fix="correct that line") from error
    return merge(base, mapping, source=str(path))


def override(config: ConfigT, assignments: Mapping[str, Any]) -> ConfigT:
    """Return ``config`` with dotted keys replaced; strings are parsed by the field's type.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Run:
    ...     steps: int = 10
    >>> override(Run(), {"steps": "2K"})
    Run(steps=2048)
    """
    nested: dict[str, Any] = {}
    for key, value in assignments.items():
        *parents, leaf = key.replace("-", "_").split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{key!r} is set twice, once as a value and once as a section")
        node[leaf] = value
    return merge(config, nested, source="command line")


def parse_flags(tokens: Sequence[str]) -> dict[str, str]:
    """Turn ``--a.b 1 --c=2 --flag`` into ``{"a.b": "1", "c": "2", "flag": "true"}``.

    Raises:
        ConfigError: a token that is neither a flag nor the value of one.
    """
    flags: dict[str, str] = {}
    index = 0
    while index < len(tokens):
        token = tokens[index]
        if not token.startswith("--") or len(token) == 2:
            raise ConfigError(
                f"unexpected argument {token!r}", fix="write options as --section.key value"
            )
        name, equals, value = token[2:].partition("=")
        if not equals:
            following = tokens[index + 1] if index + 1 < len(tokens) else None
            if following is None or following.startswith("--"):
                value = "true"
            else:
                value = following
                index += 1
        flags[name] = value
        index += 1
    return flags


def fields(config: Any, prefix: str = "") -> Iterator[Field]:
    """Yield every leaf of a configuration object, depth first."""
    helps, hints = field_help(type(config)), typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        key = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from fields(value, prefix=f"{key}.")
        else:
            yield Field(key, hints[field.name], value, helps.get(field.name, ""))


def to_mapping(config: Any) -> dict[str, Any]:
    """Turn a configuration into nested plain data; ``None`` fields are left out."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None:
            continue
        result[field.name] = _plain(value)
    return result


def to_toml(config: Any, *, comments: bool = True) -> str:
    """Render a configuration as TOML with each field's help as a comment.

    Fields that are ``None`` appear commented out, so that the file shows every key.
    """
    return "\n".join(_toml_lines(config, "", comments)).strip() + "\n"


@functools.cache
def field_help(cls: type) -> dict[str, str]:
    """Return the help of each field from the ``Attributes:`` sections of a class and its bases."""
    names = {field.name for field in dataclasses.fields(cls)}
    helps: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        helps |= _attributes_section(owner.__doc__ or "", names)
    return helps


def _attributes_section(docstring: str, names: set[str]) -> dict[str, str]:
    section = re.search(r"^\s*Attributes:\s*\n(.*)", docstring, re.S | re.M)
    helps: dict[str, str] = {}
    name = None
    for line in section.group(1).splitlines() if section else ():
        match = re.match(r"^\s*(\w+):\s+(\S.*)$", line)
        if match and match.group(1) in names:
            name = match.group(1)
            helps[name] = match.group(2).strip()
        elif name and line.strip():
            helps[name] += " " + line.strip()
    return helps


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _toml_lines(config: Any, section: str, comments: bool) -> Iterator[str]:
    helps = field_help(type(config))
    nested = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            nested.append((field.name, value))
            continue
        if comments and field.name in helps:
            yield f"# {helps[field.name]}"
        yield f"# {field.name} =" if value is None else f"{field.name} = {_toml_value(value)}"
    for name, value in nested:
        path = f"{section}.{name}" if section else name
        yield ""
        summary = (type(value).__doc__ or "").strip().splitlines()
        if comments and summary:
            yield f"# {summary[0]}"
        yield f"[{path}]"
        yield from _toml_lines(value, path, comments)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str | Path):
        # TOML basic strings are JSON strings, apart from DEL and surrogates.
        import json

        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    raise ConfigError(f"a {type(value).__name__} cannot be written to TOML: {value!r}")


def _build(cls: type, base: Any, mapping: Mapping[str, Any], *, prefix: str, source: str) -> Any:
    where = f" ({source})" if source else ""
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{prefix.rstrip('.')} is a section, not the value {mapping!r}{where}")
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    for key in mapping:
        if key not in known:
            raise ConfigError(
                f"unknown key {prefix}{key!s}{where}",
                fix=did_you_mean(f"{prefix}{key}", [prefix + name for name in known]),
            )
    values: dict[str, Any] = {}
    for name, field in known.items():
        key = prefix + name
        nested = _dataclass_of(hints[name], mapping.get(name))
        if name not in mapping:
            if base is not None:
                values[name] = getattr(base, name)
            elif _is_required(field):
                raise ConfigError(f"{key} is missing{where}", fix=f"set {key}")
        elif nested is not None and isinstance(mapping[name], Mapping):
            current = getattr(base, name) if base is not None else None
            current = current if isinstance(current, nested) else None
            values[name] = _build(nested, current, mapping[name], prefix=key + ".", source=source)
        else:
            values[name] = _coerce(mapping[name], hints[name], key, where)
    return cls(**values)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _dataclass_of(annotation: Any, given: Any) -> type | None:
    """Return a section's class: where there are several, the first that has all keys given."""
    sections = [o for o in _options(annotation) if dataclasses.is_dataclass(o)]
    keys = set(given) if isinstance(given, Mapping) else set()
    for section in sections:
        if keys <= {field.name for field in dataclasses.fields(section)}:
            return typing.cast(type, section)
    return typing.cast(type, sections[0]) if sections else None


def _options(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _coerce(value: Any, annotation: Any, key: str, where: str) -> Any:
    problems = []
    for option in _options(annotation):
        try:
            return _convert(value, option)
        except (TypeError, ValueError) as error:
            problems.append(str(error))
    expected = " or ".join(_type_name(option) for option in _options(annotation))
    detail = next((text for text in problems if text), "")
    message = f"{key} = {value!r} is not {expected}{where}"
    raise ConfigError(message, fix=detail or f"give {key} as {expected}")


def _convert(value: Any, annotation: Any) -> Any:
    """Convert to one concrete type or raise ``TypeError``/``ValueError``."""
    origin = typing.get_origin(annotation)
    if dataclasses.is_dataclass(annotation):
        if isinstance(value, typing.cast(type, annotation)):
            return value
        raise TypeError("give a section")
    if annotation is type(None):
        if value is None or value in ("none", "None", "null"):
            return None
        raise TypeError("")
    if origin is Literal:
        choices = typing.get_args(annotation)
        for choice in choices:
            if value == choice or (isinstance(value, str) and value == str(choice)):
                return choice
        raise ValueError(did_you_mean(str(value), [str(choice) for choice in choices]))
    if origin is tuple:
        return _convert_tuple(value, typing.get_args(annotation))
    if annotation is bool:
        return _convert_bool(value)
    if annotation is int:
        return _convert_int(value)
    if annotation is float:
        return _convert_float(value)
    if annotation is str:
        if isinstance(value, str):
            return value
        raise TypeError("")
    if annotation is Path:
        if isinstance(value, str | Path):
            return Path(value).expanduser()
        raise TypeError("")
    raise TypeError(f"configuration fields cannot have type {annotation!r}")


def _convert_tuple(value: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise TypeError("give a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_coerce(item, arguments[0], "item", "") for item in value)
    if len(arguments) != len(value):
        raise ValueError(f"give {len(arguments)} items, not {len(value)}")
    return tuple(_coerce(v, a, "item", "") for v, a in zip(value, arguments, strict=True))


def _convert_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise TypeError("give true or false")


def _convert_int(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("")
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return parse_count(value)
    raise TypeError("")


def _convert_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError("")
    return float(value)


def parse_count(text: str) -> int:
    """Parse a human count: ``k``/``m``/``g`` are powers of 1000, ``K``/``M``/``G`` of 1024.

    >>> parse_count("32K"), parse_count("1.5m"), parse_count("1e3")
    (32768, 1500000, 1000)
    """
    match = re.fullmatch(r"\s*([+-]?[\d_]*\.?\d+(?:e[+-]?\d+)?)\s*([kKmMgG]?)\s*", text)
    if match is None:
        raise ValueError("give a whole number such as 1000, 32K (x1024) or 1.5m (x1000000)")
    number = float(match.group(1).replace("_", "")) * _MULTIPLIERS[match.group(2)]
    if not number.is_integer():
        raise ValueError(f"{text!r} is not a whole number")
    plain = match.group(1).replace("_", "")
    return int(plain) if not match.group(2) and plain.lstrip("+-").isdigit() else int(number)


def _type_name(annotation: Any) -> str:
    if annotation is type(None):
        return "none"
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(annotation))
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(annotation) or getattr(annotation, "__name__", str(annotation))
