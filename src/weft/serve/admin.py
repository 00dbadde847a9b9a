"""What only the owner of a server may do: pause, sleep, change weights, forget caches.

There are no such routes unless the server has an ``admin_key``; then they take that key and no
other. Names are those of vLLM and SGLang, whose clients (RL trainers) call them; where the two
differ, both work. Parameters come as JSON or, as vLLM's do, in the query.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol, TypeVar

import torch
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from weft.checkpoint.transfer import LoadReport
from weft.core.errors import RequestError
from weft.dist.ipc import TensorHandle, rebuild
from weft.engine.pause import PauseMode
from weft.engine.sleep import TAGS, Level, SleepReport
from weft.engine.weights import UpdateReport
from weft.serve.body import Body, Int64
from weft.serve.protocol import parse
from weft.serve.service import Service, read_json


class AdminEngine(Protocol):
    """An engine that can be paused and changed; ``weft.engine.async_engine.AsyncEngine`` is one."""

    @property
    def state(self) -> str: ...
    @property
    def asleep(self) -> frozenset[str]: ...
    @property
    def weight_version(self) -> int: ...

    async def pause(self, mode: PauseMode = "abort") -> None: ...
    async def resume(self) -> None: ...
    async def sleep(self, tags: Iterable[str] = TAGS, *, level: Level = 1) -> SleepReport: ...
    async def wake(self, tags: Iterable[str] = TAGS) -> SleepReport: ...
    async def flush_prefixes(self) -> None: ...
    async def abort_prefix(self, prefix: str) -> int: ...
    async def update_weights(
        self,
        tensors: Mapping[str, torch.Tensor],
        *,
        version: int | None = None,
        partial: bool = False,
    ) -> UpdateReport: ...
    async def reload_weights(
        self, folder: str | None = None, *, version: int | None = None
    ) -> LoadReport: ...


class PauseBody(Body):
    """``POST /pause``: what becomes of requests under way."""

    mode: Literal["abort", "retract", "in_place"] = "abort"


class TagsBody(Body):
    """``POST /wake_up``: what to take back; nothing said is everything."""

    tags: list[Literal["weights", "kv_cache"]] | None = None


class SleepBody(TagsBody):
    """``POST /sleep``: what to let go of, and whether weights are kept (1) or thrown away (2)."""

    level: Literal[1, 2] = 1


class ReloadBody(Body):
    """``POST /update_weights_from_disk``; without a path, from where they came."""

    model_path: str | None = None
    weight_version: Int64 | None = None


class SharedWeightsBody(Body):
    """``POST /update_weights_from_ipc``: handles that a process of this machine shares."""

    handles: list[str]
    weight_version: Int64 | None = None
    partial: bool = False


class AbortBody(Body):
    """``POST /abort_request``: an answer's id, or everything."""

    rid: str = ""
    abort_all: bool = False


class EmptyBody(Body):
    """Nothing to say."""


T = TypeVar("T", bound=Body)


class AdminEndpoints:
    """The endpoints over one engine."""

    def __init__(self, service: Service, engine: AdminEngine) -> None:
        self._service = service
        self._engine = engine

    async def pause(self, request: Request) -> JSONResponse:
        """``POST /pause``: compute nothing; new requests wait."""
        body = await self._read(PauseBody, request)
        await self._engine.pause(body.mode)
        return self._status()

    async def resume(self, request: Request) -> JSONResponse:
        """``POST /resume``: compute again."""
        await self._read(EmptyBody, request)
        await self._engine.resume()
        return self._status()

    async def sleep(self, request: Request) -> JSONResponse:
        """``POST /sleep``: let go of memory; new requests are refused."""
        body = await self._read(SleepBody, request)
        tags = TAGS if body.tags is None else body.tags
        report = await self._engine.sleep(tags, level=body.level)
        return self._status(freed_bytes=report.moved_bytes, seconds=report.seconds)

    async def wake_up(self, request: Request) -> JSONResponse:
        """``POST /wake_up``: take memory back."""
        body = await self._read(TagsBody, request)
        report = await self._engine.wake(TAGS if body.tags is None else body.tags)
        return self._status(taken_bytes=report.moved_bytes, seconds=report.seconds)

    async def is_paused(self, _: Request) -> JSONResponse:
        """``GET /is_paused``."""
        return JSONResponse({"is_paused": self._engine.state == "paused"})

    async def is_sleeping(self, _: Request) -> JSONResponse:
        """``GET /is_sleeping``."""
        asleep = self._engine.asleep
        return JSONResponse({"is_sleeping": bool(asleep), "tags": sorted(asleep)})

    async def update_weights_from_disk(self, request: Request) -> JSONResponse:
        """``POST /update_weights_from_disk``: load a checkpoint into the live tensors."""
        body = await self._read(ReloadBody, request)
        report = await self._engine.reload_weights(body.model_path, version=body.weight_version)
        return self._updated(report.num_tensors, report.size_bytes)

    async def update_weights_from_ipc(self, request: Request) -> JSONResponse:
        """``POST /update_weights_from_ipc``: copy from memory that another process shares."""
        body = await self._read(SharedWeightsBody, request)
        handles = [TensorHandle.from_json(text) for text in body.handles]
        tensors = {handle.info.name: rebuild(handle) for handle in handles}
        report = await self._engine.update_weights(
            tensors, version=body.weight_version, partial=body.partial
        )
        return self._updated(report.num_tensors, report.size_bytes)

    async def flush_cache(self, request: Request) -> JSONResponse:
        """``POST /flush_cache``: forget all cached prefixes."""
        await self._read(EmptyBody, request)
        await self._engine.flush_prefixes()
        return self._status()

    async def abort_request(self, request: Request) -> JSONResponse:
        """``POST /abort_request``: end the requests of one answer, or all."""
        body = await self._read(AbortBody, request)
        if not body.rid and not body.abort_all:
            raise RequestError(
                "abort_request names no request", fix="send rid, or abort_all true", param="rid"
            )
        num_aborted = await self._engine.abort_prefix("" if body.abort_all else body.rid)
        return self._status(num_aborted=num_aborted)

    async def weight_version(self, _: Request) -> JSONResponse:
        """``GET /get_weight_version``."""
        return JSONResponse({"weight_version": self._engine.weight_version})

    def _status(self, **more: Any) -> JSONResponse:
        return JSONResponse({"success": True, "status": self._engine.state, **more})

    def _updated(self, num_tensors: int, size_bytes: int) -> JSONResponse:
        return self._status(
            weight_version=self._engine.weight_version,
            num_tensors=num_tensors,
            size_bytes=size_bytes,
        )

    async def _read(self, model: type[T], request: Request) -> T:
        """Read a body, or the query where there is none."""
        query = request.query_params
        if request.headers.get("content-type"):
            return parse(model, await read_json(request, self._service.config))
        values: dict[str, Any] = {}
        for name in query:
            values[name] = query.getlist(name) if name == "tags" else query[name]
            if name in ("level", "weight_version") and query[name].isdigit():
                values[name] = int(query[name])
        return parse(model, json.dumps(values).encode())


class AdminCollector(Collector):
    """Gauges of what an owner can change, for /metrics."""

    def __init__(self, engine: AdminEngine, model_name: str) -> None:
        self._engine = engine
        self._model_name = model_name

    def collect(self) -> Iterator[Metric]:
        """Yield one metric family per number (called by prometheus-client)."""
        version = self._gauge("weft_weight_version", "Version of the weights in use.")
        version.add_metric([self._model_name], self._engine.weight_version)
        yield version
        state = self._gauge("weft_engine_state", "1 for the state the engine is in.", "state")
        for name in ("running", "paused", "asleep", "torn"):
            state.add_metric([self._model_name, name], float(self._engine.state == name))
        yield state
        asleep = self._gauge("weft_engine_asleep", "1 for memory that was let go.", "tag")
        for tag in TAGS:
            asleep.add_metric([self._model_name, tag], float(tag in self._engine.asleep))
        yield asleep

    def _gauge(self, name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, text, labels=["model_name", *labels])


def admin_routes(service: Service, engine: AdminEngine) -> list[Route]:
    """Return the routes, and show the engine's state in the service's metrics."""
    service.metrics.registry.register(AdminCollector(engine, service.model_name))
    endpoints = AdminEndpoints(service, engine)
    posts: dict[Callable[[Request], Awaitable[JSONResponse]], tuple[str, ...]] = {
        endpoints.pause: ("/pause", "/pause_generation"),
        endpoints.resume: ("/resume", "/continue_generation"),
        endpoints.sleep: ("/sleep", "/release_memory_occupation"),
        endpoints.wake_up: ("/wake_up", "/resume_memory_occupation"),
        endpoints.update_weights_from_disk: ("/update_weights_from_disk",),
        endpoints.update_weights_from_ipc: ("/update_weights_from_ipc",),
        endpoints.flush_cache: ("/flush_cache", "/reset_prefix_cache"),
        endpoints.abort_request: ("/abort_request",),
    }
    return [
        *(
            Route(path, endpoint, methods=["POST"])
            for endpoint, paths in posts.items()
            for path in paths
        ),
        Route("/is_paused", endpoints.is_paused),
        Route("/is_sleeping", endpoints.is_sleeping),
        Route("/get_weight_version", endpoints.weight_version),
    ]
