"""The application: routes, guards and error answers around one engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from weft.core.errors import UnsupportedError, WeftError
from weft.serve.adapters import AdapterEndpoints
from weft.serve.admin import AdminEngine, admin_routes
from weft.serve.backend import Engine, Tokenizer
from weft.serve.chat import ChatEndpoint
from weft.serve.completions import CompletionEndpoint
from weft.serve.embeddings import EmbeddingEndpoint
from weft.serve.encoder import TextEncoder
from weft.serve.errors import handle_error, http_error_handler
from weft.serve.health import HealthEndpoint
from weft.serve.info import InfoEndpoints
from weft.serve.limits import GuardMiddleware, ServerConfig
from weft.serve.names import AdapterEngine
from weft.serve.pages import page_routes
from weft.serve.prompts import PromptReader, Renderer
from weft.serve.rerank import RerankEndpoint, ScoreEndpoint
from weft.serve.service import Service
from weft.serve.turns import TurnFormat

Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(
    engine: Engine,
    tokenizer: Tokenizer,
    model_name: str,
    config: ServerConfig | None = None,
    *,
    max_context: int,
    renderer: Renderer | None = None,
    turns: TurnFormat | None = None,
    encoder: TextEncoder | None = None,
    adapters: AdapterEngine | None = None,
    admin: AdminEngine | None = None,
    web_folder: Path | None = None,
) -> Starlette:
    """Build the server's application; its ``state.service`` holds what the endpoints share.

    Args:
        max_context: Most tokens of prompt and answer together.
        renderer: Turns conversations into tokens (``weft.text.render.Renderer``); without one,
            /v1/chat/completions is refused.
        turns: How the model writes thoughts and tool calls; none means neither.
        encoder: Gives vectors; a server that has one refuses to generate.
        adapters: The engine again, if requests can name adapters of it.
        admin: The engine again, if it can be paused and changed; used with ``config.admin_key``.
        web_folder: Static files for ``/``, usually ``weft.web.STATIC_FOLDER``.
    """
    config = config or ServerConfig()
    prompts = PromptReader(tokenizer, max_context=max_context, renderer=renderer)
    turns = turns or TurnFormat()
    service = Service(engine, tokenizer, model_name, config, prompts, turns, encoder, adapters)
    pages = [] if web_folder is None else list(page_routes(web_folder))
    owned: list[Route] = []
    if admin is not None and config.admin_key is not None:
        owned = admin_routes(service, admin)
    routes: list[BaseRoute] = [
        *api_routes(service),
        *adapter_routes(service, adapters),
        *owned,
        *pages,
    ]
    paths = [route.path for route in routes if isinstance(route, Route)]
    app = Starlette(
        routes=routes,
        middleware=_middleware(
            config,
            public=[route.path for route in pages],
            admin=[route.path for route in owned],
        ),
        exception_handlers={
            ClientDisconnect: _nobody_left,
            WeftError: handle_error,
            404: http_error_handler(paths),
            405: http_error_handler(paths),
            Exception: handle_error,
        },
    )
    app.state.service = service
    return app


def api_routes(service: Service) -> list[Route]:
    """Return the routes of the API."""
    info = InfoEndpoints(service)
    generates = service.encoder is None
    chat = ChatEndpoint(service) if generates else _refuse_to_generate
    complete = CompletionEndpoint(service) if generates else _refuse_to_generate
    rerank, score = _endpoint(RerankEndpoint(service)), _endpoint(ScoreEndpoint(service))
    return [
        Route("/v1/chat/completions", _endpoint(chat), methods=["POST"]),
        Route("/v1/completions", _endpoint(complete), methods=["POST"]),
        Route("/v1/embeddings", _endpoint(EmbeddingEndpoint(service)), methods=["POST"]),
        *(Route(path, rerank, methods=["POST"]) for path in ("/v1/rerank", "/rerank")),
        *(Route(path, score, methods=["POST"]) for path in ("/v1/score", "/score")),
        Route("/v1/models", info.models),
        Route("/v1/models/{model:path}", info.model),
        Route("/v1/stats", info.stats),
        Route("/tokenize", info.tokenize, methods=["POST"]),
        Route("/detokenize", info.detokenize, methods=["POST"]),
        Route("/metrics", info.metrics),
        Route("/health", _endpoint(HealthEndpoint(service))),
    ]


def adapter_routes(service: Service, engine: AdapterEngine | None) -> list[Route]:
    """Return the routes that change which adapters are loaded."""
    endpoints = AdapterEndpoints(service, engine)
    return [
        Route("/v1/load_lora_adapter", endpoints.load, methods=["POST"]),
        Route("/v1/unload_lora_adapter", endpoints.unload, methods=["POST"]),
    ]


def _endpoint(endpoint: Endpoint) -> Endpoint:
    """Wrap a callable object as the function that Starlette takes for an endpoint."""

    async def handle(request: Request) -> Response:
        return await endpoint(request)

    return handle


async def _refuse_to_generate(_: Request) -> Response:
    raise UnsupportedError(
        "this server's model is an encoder, which gives vectors and generates no text",
        fix="use /v1/embeddings, /v1/rerank or /v1/score, or serve a decoder",
    )


def _middleware(config: ServerConfig, *, public: list[str], admin: list[str]) -> list[Middleware]:
    guard = Middleware(GuardMiddleware, config=config, public=public, admin=admin)
    if not config.allowed_origins:
        return [guard]
    # CORS comes first: a browser's preflight request carries no API key.
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(config.allowed_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
    )
    return [cors, guard]


async def _nobody_left(_: Request, error: Exception) -> Response:
    """Answer a client that is gone; 499 shows in access logs only."""
    return Response(status_code=499)
