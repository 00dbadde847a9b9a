"""Loading and unloading adapters while serving.

The endpoints have the paths and bodies of vLLM. They act only where
``ServerConfig.allow_adapter_updates`` says so, because a client names a folder of the server's
disk.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from weft.core.errors import RequestError, UnsupportedError, UserError, did_you_mean
from weft.serve.body import Body, Int64
from weft.serve.errors import NotFoundError
from weft.serve.names import AdapterEngine
from weft.serve.protocol import parse
from weft.serve.service import Service, read_json


class LoadAdapterBody(Body):
    """``POST /v1/load_lora_adapter``."""

    lora_name: str
    lora_path: str
    load_inplace: bool = False


class UnloadAdapterBody(Body):
    """``POST /v1/unload_lora_adapter``."""

    lora_name: str
    # vLLM's number of an adapter; ours are known by name.
    lora_int_id: Int64 | None = None


class AdapterEndpoints:
    """Load and unload while serving.

    Args:
        service: The application's state.
        engine: Whose adapters; none refuses.
    """

    def __init__(self, service: Service, engine: AdapterEngine | None) -> None:
        self._service = service
        self._engine = engine

    async def load(self, request: Request) -> PlainTextResponse:
        """``POST /v1/load_lora_adapter``; with ``load_inplace`` a loaded name is replaced."""
        body = parse(LoadAdapterBody, await read_json(request, self._service.config))
        engine = self._check_allowed()
        name = body.lora_name
        if name == self._service.model_name:
            raise RequestError(
                f"{name!r} is the model's own name", fix="use another", param="lora_name"
            )
        loaded = {adapter.name for adapter in engine.adapters}
        if name in loaded and not body.load_inplace:
            raise RequestError(
                f"an adapter {name!r} is loaded already",
                fix="set load_inplace to true, or unload it first",
                param="lora_name",
            )
        try:
            await engine.load_adapter(name, body.lora_path, replace=body.load_inplace)
        except RequestError:
            raise
        except UserError as error:
            raise RequestError(error.message, fix=error.fix, param="lora_path") from error
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: Request) -> PlainTextResponse:
        """``POST /v1/unload_lora_adapter``; requests under way finish with it."""
        body = parse(UnloadAdapterBody, await read_json(request, self._service.config))
        engine = self._check_allowed()
        name = body.lora_name
        loaded = [adapter.name for adapter in engine.adapters]
        if name not in loaded:
            raise NotFoundError(
                f"no adapter {name!r} is loaded",
                fix=did_you_mean(name, loaded) if loaded else "load one first",
                param="lora_name",
                code="adapter_not_found",
            )
        await engine.unload_adapter(name)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    def _check_allowed(self) -> AdapterEngine:
        if not self._service.config.allow_adapter_updates:
            raise UnsupportedError(
                "this server's adapters cannot be changed over HTTP",
                fix="start it with --allow-adapter-updates",
            )
        if self._engine is None:
            raise UnsupportedError(
                "this server's engine takes no adapters",
                fix="start it with --adapters.max-loaded 8",
            )
        return self._engine
