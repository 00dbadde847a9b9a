"""An application for an engine of this process."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette

from weft.engine.async_engine import AsyncEngine
from weft.serve.app import create_app
from weft.serve.limits import ServerConfig
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
    has_template = tokenizer.chat_template is not None
    return create_app(
        engine,
        tokenizer,
        model_name,
        config,
        max_context=engine.core.scheduler.config.context_limit,
        renderer=Renderer(tokenizer) if has_template else None,
        web_folder=web_folder,
    )
