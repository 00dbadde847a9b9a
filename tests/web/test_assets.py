"""The page's files hang together and need nothing from outside."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
from starlette.applications import Starlette

from tests.serve.fakes import ByteTokenizer, FakeEngine
from weft.core.errors import InputFileError
from weft.serve.app import create_app
from weft.serve.limits import ServerConfig
from weft.serve.pages import page_routes
from weft.web import STATIC_FOLDER

FILES = sorted(path for path in STATIC_FOLDER.iterdir())
NAMES = {path.name for path in FILES}
HTML = (STATIC_FOLDER / "chat.html").read_text(encoding="utf-8")
SCRIPTS = [path for path in FILES if path.suffix == ".js"]


def get(app: Starlette, path: str, **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(send())


@pytest.fixture
def app() -> Starlette:
    config = ServerConfig(api_key="s3cret")
    return create_app(
        FakeEngine(), ByteTokenizer(), "tiny", config, max_context=64, web_folder=STATIC_FOLDER
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_another_origin(path):
    text = path.read_text(encoding="utf-8")
    urls = re.findall(r"""(?:https?:)?//[\w-]+\.[\w./-]+""", text)
    # The name of the SVG language is an identifier, never fetched.
    assert [url for url in urls if url != "http://www.w3.org/2000/svg"] == []


def test_every_file_the_page_loads_exists():
    links = re.findall(r'(?:src|href)="([^"#]+)"', HTML)
    imports = [
        name
        for path in SCRIPTS
        for name in re.findall(r'from "\./([^"]+)"', path.read_text("utf-8"))
    ]
    assert {"app.js", "style.css", "icon.svg"} <= set(links)
    assert set(links) | set(imports) <= NAMES
    assert set(imports) | {"app.js"} == {path.name for path in SCRIPTS}


def test_every_id_a_script_asks_for_exists_once():
    ids = re.findall(r'\bid="([^"]+)"', HTML)
    assert len(ids) == len(set(ids))
    wanted = {
        name
        for path in SCRIPTS
        for name in re.findall(r"""(?:\$|getElementById)\("([^"]+)"\)""", path.read_text("utf-8"))
    }
    assert len(wanted) > 30
    assert wanted <= set(ids)
    for attribute in ("for", "aria-controls", "aria-labelledby", "aria-describedby"):
        assert set(re.findall(rf'\b{attribute}="([^"]+)"', HTML)) <= set(ids)


def test_every_control_has_a_name():
    for tag, body in re.findall(r"<button([^>]*)>(.*?)</button>", HTML, re.DOTALL):
        text = re.sub(r"<svg.*?</svg>", "", body, flags=re.DOTALL).strip()
        assert text or "aria-label=" in tag, tag
    labelled = set(re.findall(r'\bfor="([^"]+)"', HTML))
    fields = re.findall(r'<(?:input|textarea)[^>]*\bid="([^"]+)"', HTML)
    assert len(fields) == 7
    assert set(fields) <= labelled


@pytest.mark.parametrize(
    "path", [*SCRIPTS, STATIC_FOLDER / "chat.html"], ids=lambda path: path.name
)
def test_nothing_is_parsed_as_markup_or_run_as_code(path):
    text = path.read_text("utf-8")
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\son\w+="
    assert re.findall(sinks, text) == []
    assert re.findall(r"<style|\sstyle=|<script(?![^>]*src=)", text) == []


@pytest.mark.parametrize("name", ["", *sorted(NAMES)])
def test_every_file_is_served_under_the_strict_policy_and_without_a_key(app: Starlette, name: str):
    response = get(app, f"/{name}")
    assert response.status_code == 200
    assert response.content == (STATIC_FOLDER / (name or "chat.html")).read_bytes()
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"


def test_scripts_and_styles_have_the_types_that_nosniff_demands(app: Starlette):
    assert "javascript" in get(app, "/app.js").headers["content-type"]
    assert get(app, "/style.css").headers["content-type"].startswith("text/css")
    assert get(app, "/").headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("path", ["/../app.py", "/%2e%2e/app.py", "/static/app.js", "/.app.js"])
def test_no_other_file_can_be_had(app: Starlette, path: str):
    assert get(app, path, authorization="Bearer s3cret").status_code == 404


def test_a_folder_without_the_page_is_refused(tmp_path):
    with pytest.raises(InputFileError, match=r"chat\.html"):
        list(page_routes(tmp_path))
