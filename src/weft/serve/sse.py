"""Server-sent events: an answer that is sent piece by piece and notices a client that went away.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

DONE = "data: [DONE]\n\n"
PING = ": ping\n\n"
PING_INTERVAL_S = 15.0

T = TypeVar("T")


def event(value: Mapping[str, Any]) -> str:
    """Return one event that carries JSON."""
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


class EventStream(Response):
    """Sends the events of an async generator and always closes it.

    Starlette's ``StreamingResponse`` leaves a generator open until it is collected when the client
    disconnects; here its ``finally`` runs at once, which is what aborts the engine's request.
    A comment is sent during long silences so that proxies keep the connection.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[str, None],
        *,
        on_close: Callable[[], None],
        headers: Mapping[str, str] | None = None,
        ping_interval_s: float = PING_INTERVAL_S,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._on_close = on_close
        self._events = events
        self._ping_interval_s = ping_interval_s
        self.init_headers(
            {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pump = asyncio.create_task(self._pump(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
        except (OSError, ClientDisconnect):
            pass
        finally:
            await _cancel(pump, gone)
            await self._events.aclose()
            # A generator that never started has no ``finally`` to run.
            self._on_close()

    async def _pump(self, send: Send) -> None:
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        pending = asyncio.ensure_future(anext(self._events, None))
        try:
            while True:
                await asyncio.wait({pending}, timeout=self._ping_interval_s)
                text = pending.result() if pending.done() else PING
                if text is None:
                    break
                await _send_body(send, text, more=True)
                if pending.done():
                    pending = asyncio.ensure_future(anext(self._events, None))
        finally:
            await _cancel(pending)
        await _send_body(send, "", more=False)


async def until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Run ``work``, but cancel it when the client goes away. The body must have been read.

    Raises:
        ClientDisconnect: nobody is left to answer.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await _cancel(task, gone)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send_body(send: Send, text: str, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": more})
