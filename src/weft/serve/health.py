"""``GET /health``: whether a request sent now would be answered."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

from weft.serve.service import Service


class HealthEndpoint:
    """200 while requests are taken, also by a paused engine, where they wait.

    503 when the engine is dead, stuck or asleep, when its weights are half written, or while
    draining.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, _: Request) -> JSONResponse:
        if self._service.draining:
            return JSONResponse({"status": "draining"}, status_code=503)
        if not self._service.engine.healthy:
            return JSONResponse({"status": "dead"}, status_code=503)
        state = self._service.engine.state
        if state in ("asleep", "torn"):
            return JSONResponse({"status": state}, status_code=503)
        return JSONResponse({"status": "paused" if state == "paused" else "ok"})
