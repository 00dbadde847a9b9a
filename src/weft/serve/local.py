"""Applications for an engine or an encoder of this process."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette

from weft.engine.async_embedder import AsyncEmbedder
from weft.engine.async_engine import AsyncEngine
from weft.serve.app import create_app
from weft.serve.encoder import EncoderOnly, TextEncoder
from weft.serve.limits import ServerConfig
from weft.serve.turns import TurnFormat
from weft.text.parsers.reasoning import OPENING
from weft.text.parsers.tools import detect_format
from weft.text.render import Renderer
from weft.text.tokenizer import Tokenizer


def create_engine_app(
    engine: AsyncEngine,
    tokenizer: Tokenizer,
    model_name: str,
    config: ServerConfig | None = None,
    *,
    web_folder: Path | None = None,
) -> Starlette:
    """Build the application of an ``AsyncEngine``; chat needs a tokenizer with a chat template."""
    template = tokenizer.chat_template
    return create_app(
        engine,
        tokenizer,
        model_name,
        config,
        max_context=engine.core.scheduler.config.context_limit,
        renderer=None if template is None else Renderer(tokenizer),
        turns=None if template is None else _turn_format(template.source),
        adapters=engine if engine.core.adapters.enabled else None,
        admin=engine,
        web_folder=web_folder,
    )


def create_encoder_app(
    embedder: AsyncEmbedder, model_name: str, config: ServerConfig | None = None
) -> Starlette:
    """Build the application of an encoder: vectors and scores, no text."""
    config = config or ServerConfig()
    return create_app(
        EncoderOnly(embedder),
        embedder.embedder.tokenizer,
        model_name,
        config,
        max_context=embedder.embedder.max_tokens,
        encoder=TextEncoder(embedder, max_inputs=config.max_inputs),
    )


def _turn_format(template: str) -> TurnFormat:
    """Read off a chat template how its model writes thoughts and tool calls."""
    return TurnFormat(reasoning=OPENING in template, tools=detect_format(template))
