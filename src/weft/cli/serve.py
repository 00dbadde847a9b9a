"""``weft serve``: OpenAI-compatible API and the chat page, or the vectors of an encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.configs import Overrides, assemble
from weft.core.console import console
from weft.core.errors import ConfigError

if TYPE_CHECKING:
    from weft.engine.config import EngineConfig
    from weft.serve.limits import ServerConfig


def serve(
    model: Path,
    *overrides: Overrides,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    api_key: str | None = None,
) -> None:
    """Serve a model: OpenAI-compatible API and a chat page.

    Parameters
    ----------
    model
        Folder of a Hugging Face checkpoint; an encoder's serves embeddings and scores.
    overrides
        Engine settings, such as --kv-memory-bytes 1G or --max-num-sequences 64.
    host
        Address to listen on; 0.0.0.0 is every interface.
    port
        Port to listen on.
    name
        The model's name in the API; none takes the folder's.
    api_key
        Clients must send this as bearer token.
    """
    from weft.engine.config import EngineConfig
    from weft.serve.limits import ServerConfig

    engine_config = assemble(EngineConfig(), None, overrides)
    server_config = ServerConfig(host=host, port=port, api_key=api_key)
    run(model, engine_config, server_config, name=name)


def run(
    model: Path,
    engine_config: EngineConfig,
    server_config: ServerConfig,
    *,
    name: str | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Load a model and serve it until Ctrl-C or SIGTERM; ``on_ready`` gets the URL."""
    from weft.checkpoint.encoders import is_encoder
    from weft.checkpoint.hf import load_model
    from weft.engine.async_engine import AsyncEngine
    from weft.ops.machine import configure_threads
    from weft.serve.local import create_engine_app
    from weft.serve.server import run_server
    from weft.text.tokenizer import Tokenizer
    from weft.web import STATIC_FOLDER

    configure_threads()
    if is_encoder(model):
        run_encoder(model, engine_config, server_config, name=name, on_ready=on_ready)
        return
    tokenizer = Tokenizer.load(model)
    engine = AsyncEngine(load_model(model), tokenizer, engine_config)
    try:
        model_name = name or model.resolve().name
        app = create_engine_app(
            engine, tokenizer, model_name, server_config, web_folder=STATIC_FOLDER
        )
        console.print(engine.core.memory.text, markup=False)
        run_server(app, server_config, on_ready=on_ready or (lambda url: announce(url, model_name)))
    finally:
        engine.shutdown()


def run_encoder(
    folder: Path,
    engine_config: EngineConfig,
    server_config: ServerConfig,
    *,
    name: str | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Load an encoder and serve its vectors until Ctrl-C or SIGTERM.

    Raises:
        ConfigError: settings of an engine, which an encoder has none of.
    """
    from weft.checkpoint.sentence import load_embedder
    from weft.engine.async_embedder import AsyncEmbedder
    from weft.engine.config import EngineConfig
    from weft.serve.local import create_encoder_app
    from weft.serve.server import run_server

    if engine_config != EngineConfig():
        raise ConfigError(
            f"{str(folder)!r} is an encoder, which has no engine to set",
            fix="leave the engine settings out",
        )
    embedder = AsyncEmbedder(load_embedder(folder))
    try:
        model_name = name or folder.resolve().name
        app = create_encoder_app(embedder, model_name, server_config)
        run_server(app, server_config, on_ready=on_ready or (lambda url: _api(url, model_name)))
    finally:
        embedder.shutdown()


def announce(url: str, model_name: str) -> None:
    """Say where the page and the API are."""
    console.print(f"\nchat page   {url}", markup=False)
    _api(url, model_name)


def _api(url: str, model_name: str) -> None:
    console.print(f"OpenAI API  {url}/v1   (model {model_name!r})", markup=False)
    console.print("Ctrl-C stops the server.\n", markup=False)
