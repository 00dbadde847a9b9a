"""The pages of the server name every engine setting, and none that does not exist."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator

from tests.docs.markdown import ROOT
from weft.engine.config import EngineConfig
from weft.engine.speculation.config import SpeculationConfig
from weft.nn.long_context.policy import HeavyHitter, SinkWindow


def cells(page: str) -> str:
    """Return the first cells of a page's tables."""
    text = (ROOT / "docs/guide" / page).read_text(encoding="utf-8")
    return "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|"))


def named(page: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)*(?:\.\*)?)`", cells(page)))


def keys(config: type, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a config, those of its sections in their place."""
    for name, hint in typing.get_type_hints(config).items():
        sections = [o for o in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(o)]
        if not sections:
            yield prefix + name
        for section in sections:
            yield from keys(typing.cast(type, section), f"{prefix}{name}.")


def test_every_engine_setting_is_in_the_table_and_no_other() -> None:
    known = set(keys(EngineConfig))
    elsewhere = {key for key in known if key.startswith(("speculation.", "long_context."))}
    listed = named("serve.md")
    assert {"speculation.*", "long_context.*"} <= listed
    assert known - elsewhere <= listed
    assert {name for name in listed if "." in name and not name.endswith("*")} <= known


def test_every_setting_of_speculation_is_on_its_page() -> None:
    assert set(keys(SpeculationConfig)) <= named("speculation.md")


def test_every_setting_of_long_contexts_is_on_the_page_of_features() -> None:
    known = {f"long_context.{field}" for field in (*keys(SinkWindow), *keys(HeavyHitter))}
    listed = named("serve-features.md")
    assert known == {name for name in listed if name.startswith("long_context.")}
