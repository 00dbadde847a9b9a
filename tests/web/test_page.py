"""The page in a real browser against a real socket; skipped where no Chromium is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.fakes import ByteRenderer, ByteTokenizer, FakeEngine
from tests.web.browser import NAMES, Browser, find_browser, wait_for
from weft.core.errors import ContextLengthError
from weft.serve.app import create_app
from weft.serve.limits import ServerConfig
from weft.serve.server import BackgroundServer
from weft.web import STATIC_FOLDER

PROGRAM = find_browser()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(PROGRAM is None, reason=f"no browser found (looked for {', '.join(NAMES)})"),
]
REPLY = "A **bold** word, `code` and <b>no markup</b>.\n\n- one\n- two\n\n```python\nx < 1\n```\n"
IDLE = "document.getElementById('stop').hidden"
LAST = "#messages > li:last-child"
ENTER = 13


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(reply=REPLY, pace_s=0.001, num_cached_tokens=4)


@pytest.fixture
def server(engine: FakeEngine, request: pytest.FixtureRequest) -> Iterator[BackgroundServer]:
    config = ServerConfig(port=0, api_key=getattr(request, "param", None))
    app = create_app(
        engine,
        ByteTokenizer(),
        "tiny",
        config,
        max_context=4096,
        renderer=ByteRenderer(),
        web_folder=STATIC_FOLDER,
    )
    with BackgroundServer(app, config) as server:
        yield server


@pytest.fixture
def browser(server: BackgroundServer, tmp_path: Path) -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path / "profile") as browser:
        browser.resize(1280, 800)
        browser.open(server.url)
        browser.wait("document.getElementById('health-dot').dataset.state !== 'unknown'")
        yield browser


def ask(browser: Browser, text: str, *, wait: bool = True) -> None:
    browser.evaluate("document.getElementById('input').focus()")
    browser.type(text)
    browser.press("Enter", ENTER)
    if wait:
        browser.wait(f"{IDLE} && document.querySelector('{LAST}').dataset.role === 'assistant'")


def test_an_answer_streams_in_and_is_built_of_safe_nodes(
    browser: Browser, engine: FakeEngine, server: BackgroundServer
):
    ask(browser, "hi there")
    assert engine.requests[0].tokens[:15] == (256, *b"user\nhi there", 257)
    content = f"{LAST} .content"
    assert browser.text(f"{content} strong") == "bold"
    assert browser.text(f"{content} p code") == "code"
    assert browser.text(f"{content} pre") == "x < 1"
    assert browser.evaluate(f"document.querySelectorAll('{content} li').length") == 2
    assert "<b>no markup</b>" in browser.text(content)
    facts = browser.text(f"{LAST} .facts")
    assert f"{len(REPLY)} tokens" in facts
    assert "tokens/s" in facts
    assert "first token after" in facts
    assert f"4 of {len(engine.requests[0].tokens)} tokens from cache" in facts
    assert browser.problems() == []
    assert all(url.startswith(server.url) for url in browser.requested_urls())


def test_the_server_state_is_shown(browser: Browser, engine: FakeEngine):
    assert browser.text("#model-name") == "tiny"
    assert browser.text("#meter-kv-text") == "25 %"
    assert browser.text("#meter-hits") == "40 %"
    assert browser.evaluate("document.getElementById('health-dot').dataset.state") == "ok"
    engine.healthy = False
    browser.wait("document.getElementById('health-dot').dataset.state === 'down'")


def test_stop_aborts_the_request_and_keeps_the_text(browser: Browser, engine: FakeEngine):
    engine.reply, engine.pace_s = "word " * 2000, 0.005
    ask(browser, "go on", wait=False)
    browser.wait(f"document.querySelector('{LAST} .content').textContent.length > 20")
    browser.press("Escape", 27)
    browser.wait(IDLE)
    assert browser.text(f"{LAST} .content").startswith("word word")
    assert "stopped" in browser.text(f"{LAST} .facts")
    wait_for(lambda: engine.aborted == [engine.requests[0].id], "aborted", 10)


def test_an_error_is_readable_and_retry_asks_again(browser: Browser, engine: FakeEngine):
    engine.refuse = ContextLengthError("the prompt has 99 tokens", fix="shorten the prompt")
    ask(browser, "too long")
    problem = browser.text(".problem")
    assert "no longer fits" in problem
    assert "The prompt has 99 tokens." in problem
    assert "Shorten the prompt." in problem
    engine.refuse = None
    browser.click(".problem button")
    browser.wait("!document.querySelector('.problem')")
    browser.wait(f"{IDLE} && document.querySelectorAll('#messages > li').length === 2")
    assert "bold" in browser.text(f"{LAST} .content")


def test_settings_shape_the_request(browser: Browser, engine: FakeEngine):
    values = {"temperature": "0", "top-p": "0.5", "max-tokens": "3", "seed": "42"}
    values["system-prompt"] = "Be brief"
    browser.click("#open-settings")
    for name, value in values.items():
        browser.evaluate(
            f"(() => {{ const field = document.getElementById('{name}'); field.value = '{value}';"
            "field.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
    browser.click(".settings .primary")
    ask(browser, "hi")
    sampling = engine.requests[0].sampling
    assert (sampling.temperature, sampling.top_p) == (0, 0.5)
    assert (sampling.max_tokens, sampling.seed) == (3, 42)
    assert bytes(engine.requests[0].tokens[1:16]) == b"system\nBe brief"
    assert "cut at the length limit" in browser.text(f"{LAST} .facts")


def test_conversations_survive_a_reload_and_can_be_deleted(
    browser: Browser, server: BackgroundServer
):
    ask(browser, "first question")
    browser.click("#new-chat")
    assert browser.evaluate("document.querySelectorAll('#messages > li').length") == 0
    browser.open(server.url)
    assert browser.text("#conversations .open") == "first question"
    browser.click("#conversations .open")
    assert "bold" in browser.text(f"{LAST} .content")
    browser.click("#conversations .delete")
    assert browser.evaluate("document.querySelectorAll('#conversations li').length") == 0


@pytest.mark.parametrize("server", ["s3cret"], indirect=True)
def test_a_server_with_a_key_asks_for_it(browser: Browser):
    assert browser.text("#model-name") == "API key needed"
    ask(browser, "hi")
    assert "asks for an API key" in browser.text(".problem")
    browser.click(".problem .actions button:last-child")
    browser.type("s3cret")
    browser.click(".settings .primary")
    browser.wait("document.getElementById('model-name').textContent === 'tiny'")
    browser.click(".problem button")
    browser.wait("!document.querySelector('.problem')")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (320, 568), (1280, 800)])
def test_nothing_is_wider_than_the_screen(browser: Browser, width: int, height: int, dark: bool):
    ask(browser, "a" * 300)
    browser.resize(width, height, mobile=width < 500, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.evaluate(
        "document.getElementById('scroller').scrollWidth"
        " <= document.getElementById('scroller').clientWidth"
    )
    bottom = browser.evaluate("document.querySelector('.meters').getBoundingClientRect().bottom")
    assert bottom <= height
