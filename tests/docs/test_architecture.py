from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from tests.docs.markdown import ROOT


@pytest.fixture(scope="module")
def make_architecture() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_architecture", ROOT / "docs/make_architecture.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_committed_page_is_what_the_packages_say(make_architecture):
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert page == make_architecture.render(), (
        "docs/architecture.md is out of date; run: python docs/make_architecture.py"
    )


def test_every_package_is_on_a_floor(make_architecture):
    listed = {package.name for package in make_architecture.read_packages()}
    assert listed == {path.parent.name for path in (ROOT / "src/weft").glob("*/__init__.py")}


def test_a_docstring_on_the_wrong_floor_is_refused(make_architecture, monkeypatch):
    monkeypatch.setattr(make_architecture, "read_docstring", lambda name: "Floor 7: wrong.")
    with pytest.raises(ValueError, match="floor 7"):
        list(make_architecture.read_packages())


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("Uses ``torch`` and\n``numpy``.", "Uses `torch` and\n`numpy`."),
        ("- ``a.py``   one\n- ``b.py``, ``c.py``  two", "- `a.py`: one\n- `b.py`, `c.py`: two"),
        ("====  ====\n``a``  one\n====  ====", "- `a`: one"),
        ("Streams\n    ``stop`` holds back.", "**Streams.** `stop` holds back."),
        ("So::\n\n    x = 1\n    y = 2", "So:\n\n```text\nx = 1\ny = 2\n```"),
        ("::\n\n    A/\n      b", "```text\nA/\n  b\n```"),
    ],
    ids=["code", "list", "table", "definition", "literal", "bare literal"],
)  # fmt: skip
def test_docstrings_become_markdown(make_architecture, text, markdown):
    assert make_architecture.to_markdown(text) == markdown
