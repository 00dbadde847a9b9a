"""Every ```python block of the documentation runs, in the order of its page, in one namespace.

A ```text block directly after one is what it prints. ```python no-run marks a block that needs
something a test does not have, such as a server.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest

from tests.docs.markdown import Block, blocks, name, pages

SNIPPETS = [page for page in pages() if any(b.info == "python" for b in blocks(page))]


@pytest.mark.parametrize("page", SNIPPETS, ids=name)
def test_snippets_run_and_print_what_the_page_says(
    page: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    namespace: dict[str, Any] = {"__name__": "snippet"}
    printed = None
    for block in blocks(page):
        if block.info == "python":
            printed = run(block, page, namespace)
        elif block.info == "text" and block.follows_directly and printed is not None:
            assert printed == block.text, f"{name(page)}:{block.line}"
            printed = None
        else:
            printed = None


def run(block: Block, page: Path, namespace: dict[str, Any]) -> str:
    """Run a block with tracebacks that point into the page; return what it printed."""
    code = compile("\n" * block.line + block.text, str(page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(code, namespace)
    return output.getvalue()


def test_only_known_kinds_of_python_blocks_are_used() -> None:
    infos = {b.info for page in pages() for b in blocks(page) if b.info.startswith("py")}
    assert infos <= {"python", "python no-run"}
