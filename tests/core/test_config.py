from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core import config as configs
from weft.core.errors import ConfigError, InputFileError


@dataclass(frozen=True)
class Optimizer:
    """How weights move.

    Attributes:
        name: The rule.
        lr: Step size,
            after warm-up.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-3


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
        steps: How many.
    """

    steps: int = 10
    out: Path = Path("runs/x")
    tags: tuple[str, ...] = ()
    limit: int | None = None
    fast: bool = False
    optimizer: Optimizer = field(default_factory=Optimizer)


def test_toml_round_trip() -> None:
    job = Job(steps=3, tags=("a", 'b"c'), limit=5, optimizer=Optimizer("muon", 0.02))
    assert configs.from_mapping(Job, tomllib.loads(configs.to_toml(job))) == job


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 2**60))
def test_any_value_survives_toml(text: str, number: float, count: int) -> None:
    text = text.encode("utf-8", "ignore").decode().replace("\x7f", "")
    job = Job(steps=count, tags=(text,), optimizer=Optimizer(lr=number))
    assert configs.from_mapping(Job, tomllib.loads(configs.to_toml(job))) == job


def test_toml_shows_help_and_unset_keys() -> None:
    text = configs.to_toml(Job())
    assert "# How many." in text
    assert "# Step size, after warm-up." in text
    assert "# limit =" in text
    assert "# How weights move.\n[optimizer]" in text


def test_flags_go_on_top_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("steps = 7\n[optimizer]\nlr = 0.5\n")
    job = configs.load_toml(Job(fast=True), tmp_path / "job.toml")
    job = configs.override(job, configs.parse_flags(["--steps", "2K", "--optimizer.name=muon"]))
    assert job == Job(steps=2048, fast=True, optimizer=Optimizer("muon", 0.5))


def test_a_negative_value_is_not_taken_for_a_flag() -> None:
    assert configs.parse_flags(["--a", "-1", "--b"]) == {"a": "-1", "b": "true"}


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        ({"optimizer.l": "1"}, "did you mean 'optimizer.lr'"),
        ({"stepz": "1"}, "did you mean 'steps'"),
        ({"steps": "many"}, "steps = 'many' is not a whole number"),
        ({"steps": "1.5"}, "not a whole number"),
        ({"optimizer.name": "adam"}, "did you mean 'adamw'"),
        ({"fast": "maybe"}, "true or false"),
        ({"optimizer": "x"}, "optimizer = 'x'"),
        ({"steps.x": "1"}, "steps"),
    ],
)
def test_mistakes_name_the_key_and_the_fix(assignments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configs.override(Job(), assignments)
    assert message in str(caught.value)


def test_optional_values_can_be_unset() -> None:
    assert configs.override(Job(limit=3), {"limit": "none"}).limit is None
    assert configs.override(Job(), {"limit": "1.5m"}).limit == 1_500_000


def test_a_missing_file_and_a_broken_one_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="weft recipes"):
        configs.load_toml(Job(), tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(ConfigError, match="not valid TOML"):
        configs.load_toml(Job(), tmp_path / "bad.toml")


def test_an_unexpected_argument_is_refused() -> None:
    with pytest.raises(ConfigError, match="unexpected argument 'steps'"):
        configs.parse_flags(["steps"])


def test_fields_lists_every_leaf() -> None:
    keys = [leaf.key for leaf in configs.fields(Job())]
    assert keys == ["steps", "out", "tags", "limit", "fast", "optimizer.name", "optimizer.lr"]


@dataclass(frozen=True)
class Square:
    side: int = 1


@dataclass(frozen=True)
class Disc:
    radius: int
    filled: bool = True


@dataclass(frozen=True)
class Drawing:
    shape: Square | Disc | None = None


def test_the_keys_given_say_which_of_several_sections_is_meant():
    assert configs.override(Drawing(), {"shape.side": "3"}).shape == Square(3)
    disc = configs.override(Drawing(), {"shape.radius": "3", "shape.filled": "false"})
    assert disc.shape == Disc(3, filled=False)
    assert configs.override(disc, {"shape.radius": "4"}).shape == Disc(4, filled=False)
    assert configs.override(disc, {"shape.side": "4"}).shape == Square(4)
    assert configs.override(disc, {"shape": "none"}).shape is None
    with pytest.raises(ConfigError, match=r"unknown key shape\.radios"):
        configs.override(Drawing(), {"shape.radios": "3"})
