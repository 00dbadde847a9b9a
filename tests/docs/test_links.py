from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, anchors, links, name, pages


@pytest.mark.parametrize("page", pages(), ids=name)
def test_relative_links_resolve(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name(page)} links to {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{name(page)} links to {target}"


def test_the_site_lists_every_page_once() -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    listed = sorted(_files(config["project"]["nav"]))
    docs = ROOT / "docs"
    # Entries of the log are found from its own page.
    expected = sorted(
        path.relative_to(docs).as_posix()
        for path in docs.rglob("*.md")
        if path.parent.name != "log" or path.name == "README.md"
    )
    assert listed == expected


def _files(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for item in node:
            yield from _files(item)
    elif isinstance(node, dict):
        for item in node.values():
            yield from _files(item)
