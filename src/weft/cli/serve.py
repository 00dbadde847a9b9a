"""``weft serve``: OpenAI-compatible API and the chat page, or the vectors of an encoder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
    admin_key: str | None = None,
    load_format: Literal["auto", "dummy"] = "auto",
    adapter: tuple[str, ...] = (),
    allow_adapter_updates: bool = False,
) -> None:
    """Serve a model: OpenAI-compatible API and a chat page.

    Parameters
    ----------
    model
        Folder of a Hugging Face checkpoint; an encoder's serves embeddings and scores.
    overrides
        Engine settings, such as --kv-memory-bytes 1G or --max-num-sequences 64;
        --parallel.tensor 2 shares every layer among two processes.
    host
        Address to listen on; 0.0.0.0 is every interface.
    port
        Port to listen on.
    name
        The model's name in the API; none takes the folder's.
    api_key
        Clients must send this as bearer token.
    admin_key
        Opens the routes to pause, sleep and change weights to whoever sends this instead.
    load_format
        dummy draws random weights and needs no weight files, to measure speed and memory.
    adapter
        NAME=FOLDER of a PEFT adapter, served as one more model; may be given several times.
    allow_adapter_updates
        Clients may load adapters from folders of this machine and unload them.
    """
    from weft.engine.config import EngineConfig
    from weft.serve.limits import ServerConfig

    engine_config = assemble(EngineConfig(), None, overrides)
    server_config = ServerConfig(
        host=host,
        port=port,
        api_key=api_key,
        admin_key=admin_key,
        allow_adapter_updates=allow_adapter_updates,
    )
    run(
        model,
        engine_config,
        server_config,
        name=name,
        adapters=named_folders(adapter),
        load_format=load_format,
    )


def run(
    model: Path,
    engine_config: EngineConfig,
    server_config: ServerConfig,
    *,
    name: str | None = None,
    adapters: Mapping[str, Path] | None = None,
    load_format: Literal["auto", "dummy"] = "auto",
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Load a model and serve it until Ctrl-C or SIGTERM; ``on_ready`` gets the URL."""
    from weft.checkpoint.encoders import is_encoder
    from weft.engine.async_engine import AsyncEngine
    from weft.ops.machine import configure_threads
    from weft.serve.local import create_engine_app
    from weft.serve.server import run_server
    from weft.web import STATIC_FOLDER

    configure_threads()
    adapters = adapters or {}
    if adapters or server_config.allow_adapter_updates:
        engine_config = with_room(engine_config, adapters)
    if is_encoder(model):
        run_encoder(model, engine_config, server_config, name=name, on_ready=on_ready)
        return
    engine = AsyncEngine.load(model, config=engine_config, load_format=load_format)
    try:
        tokenizer = engine.tokenizer
        assert tokenizer is not None
        model_name = name or model.resolve().name
        for adapter, folder in adapters.items():
            asyncio.run(engine.load_adapter(adapter, folder))
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


def named_folders(texts: Sequence[str]) -> dict[str, Path]:
    """Read NAME=FOLDER, several times.

    Raises:
        ConfigError: one without a name or a folder, or a name that comes twice.
    """
    folders: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder:
            raise ConfigError(f"--adapter is {text!r}", fix="write --adapter NAME=FOLDER")
        if name in folders:
            raise ConfigError(f"two adapters are called {name!r}", fix="use another name")
        folders[name] = Path(folder)
    return folders


def with_room(config: EngineConfig, adapters: Mapping[str, Path]) -> EngineConfig:
    """Return a config with room for adapters, as large as these; one that has room stays."""
    from weft.adapt.peft_config import read_config
    from weft.engine.adapters.config import AdapterConfig

    if config.adapters is not None:
        return config
    ranks = [read_config(folder).max_rank for folder in adapters.values()]
    room = AdapterConfig()
    return replace(config, adapters=replace(room, max_rank=max(ranks, default=room.max_rank)))


def announce(url: str, model_name: str) -> None:
    """Say where the page and the API are."""
    console.print(f"\nchat page   {url}", markup=False)
    _api(url, model_name)


def _api(url: str, model_name: str) -> None:
    console.print(f"OpenAI API  {url}/v1   (model {model_name!r})", markup=False)
    console.print("Ctrl-C stops the server.\n", markup=False)
