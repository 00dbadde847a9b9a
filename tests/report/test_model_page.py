from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.web.browser import NAMES, Browser, find_browser

from weft.cli.model import describe
from weft.report.model_page import model_page

PROGRAM = find_browser()
needs_browser = [
    pytest.mark.e2e,
    pytest.mark.skipif(PROGRAM is None, reason=f"no browser found (looked for {', '.join(NAMES)})"),
]
ROWS = "document.querySelectorAll('#tree .row').length"
SHOWN = "[...document.querySelectorAll('#tree .row')].filter(row => row.offsetParent).length"


def summary(name: str = "<b>&</script>") -> dict:
    leaf = {
        "name": "embed", "kind": "Embedding", "note": "", "repeat": 1, "parameters": 6,
        "tensors": [["weight", [3, 2]]], "inputs": ["[T]"], "outputs": ["[T, 2]"], "children": [],
    }  # fmt: skip
    tree = {**leaf, "name": "", "kind": "Decoder", "tensors": [], "children": [leaf]}
    return {
        "name": name, "family": "llama", "num_layers": 1, "dim": 2, "vocab_size": 3,
        "context_length": 8, "parameters": {"total": 6, "active": 6}, "num_modules": 2,
        "warnings": [{"field": "dim", "message": "2 < 64", "advice": "use 64"}], "tree": tree,
    }  # fmt: skip


def test_names_cannot_break_out_of_the_page() -> None:
    page = model_page(summary())
    assert "<b>&</script>" not in page
    assert page.count("</script>") == 2
    assert "2 &lt; 64" in page


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    assert PROGRAM is not None
    page = tmp_path / "model.html"
    page.write_text(model_page(describe("deepseek-v3")), encoding="utf-8")
    with Browser(PROGRAM, tmp_path / "profile") as browser:
        browser.resize(1280, 1000)
        browser.open(page.as_uri())
        yield browser
        assert not browser.problems()
        assert all(url.startswith("file:") for url in browser.requested_urls())


class TestInABrowser:
    pytestmark = needs_browser

    def test_modules_open_and_close(self, browser: Browser) -> None:
        before = browser.evaluate(SHOWN)
        browser.click("#expand")
        everything = browser.evaluate(SHOWN)
        assert everything > before
        browser.click("#collapse")
        assert browser.evaluate(SHOWN) < before

    def test_search_opens_what_it_finds(self, browser: Browser) -> None:
        browser.click("#collapse")
        browser.evaluate("document.getElementById('search').focus()")
        browser.type("shared gate_up")
        browser.wait("document.getElementById('found').textContent === '1 module'")
        assert browser.text("#tree mark") == "gate_up"

    def test_a_module_tells_its_shapes_and_share(self, browser: Browser) -> None:
        browser.click("#expand")
        rows = "[...document.querySelectorAll('.row')]"
        browser.evaluate(f"{rows}.find(row => row.innerText.includes('experts')).click()")
        text = browser.text("#about")
        assert "11,274,289,152" in text
        assert "gate_up [256, 4096, 7168]" in text
        assert "[T, 7168]" in text

    def test_keys_move_through_the_tree(self, browser: Browser) -> None:
        browser.click("#tree .row")
        browser.click("#tree .row")
        for _ in range(2):
            browser.press("ArrowDown", 40)
        assert browser.text("#about h3") == "layers"
        browser.press("ArrowLeft", 37)
        state = "document.querySelector('[aria-selected]').getAttribute('aria-expanded')"
        assert browser.evaluate(state) == "false"
