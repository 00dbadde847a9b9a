from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from starlette.applications import Starlette

from tests.serve.fakes import ByteRenderer, ByteTokenizer, FakeEngine
from weft.serve.app import create_app
from weft.serve.limits import ServerConfig

BuildApp = Callable[..., Starlette]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def build_app(engine: FakeEngine) -> BuildApp:
    def build(config: ServerConfig | None = None, **options: object) -> Starlette:
        options = {"renderer": ByteRenderer(), "max_context": 512, **options}
        return create_app(engine, ByteTokenizer(), "tiny", config, **options)

    return build


class Post:
    """Sends requests to an application in this process and returns httpx responses."""

    def __init__(self, app: Starlette) -> None:
        self.app = app

    def __call__(self, path: str, value: object = None, **options: object) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1"
            ) as client:
                if value is None:
                    return await client.get(path, **options)
                if value is not ...:
                    options["json"] = value
                return await client.post(path, **options)

        return asyncio.run(send())


@pytest.fixture
def call(build_app: BuildApp) -> Post:
    return Post(build_app())
