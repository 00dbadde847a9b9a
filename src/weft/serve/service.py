"""What all generating endpoints share: the engine, the tokenizer, checks and identities."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

import weft
from weft.core.errors import RequestError, UnsupportedError, WeftError
from weft.serve.backend import Engine, Stats, Tokenizer
from weft.serve.encoder import TextEncoder
from weft.serve.errors import (
    BodyTooLargeError,
    MediaTypeError,
    UnavailableError,
    describe,
)
from weft.serve.generation import Generation
from weft.serve.limits import ServerConfig
from weft.serve.metrics import ServerMetrics
from weft.serve.names import AdapterEngine, ServedNames
from weft.serve.prompts import Prompt, PromptReader
from weft.serve.protocol import SamplingBody
from weft.serve.sse import event
from weft.serve.structured import blame
from weft.serve.turns import TurnFormat
from weft.spec import request as engine_request
from weft.spec.sampling import SamplingParams

# The engine answers between two steps, and a step with a long prompt takes a while.
STATS_TIMEOUT_S = 1.0


class Service:
    """The state of one application."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        model_name: str,
        config: ServerConfig,
        prompts: PromptReader,
        turns: TurnFormat,
        encoder: TextEncoder | None = None,
        adapters: AdapterEngine | None = None,
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.model_name = model_name
        self.names = ServedNames(model_name, adapters)
        self.config = config
        self.prompts = prompts
        self.turns = turns
        self.encoder = encoder
        self.metrics = ServerMetrics(model_name)
        self.created = int(time.time())
        self.draining = False
        self._last_stats: Stats | None = None

    def check_model(self, name: str | None) -> None:
        """Refuse work on a model that is not served here; no name means this one.

        Raises:
            NotFoundError: nothing has this name.
            UnsupportedError: an adapter has, and this work is the model's alone.
        """
        if self.names.adapter(name):
            raise UnsupportedError(
                f"{name!r} is an adapter, which completes prompts and chats only",
                fix=f"use {self.model_name!r}",
            )

    def check_alive(self) -> None:
        """Refuse work that would wait for ever."""
        if self.draining:
            raise UnavailableError("the server is shutting down", fix="use another replica")
        if not self.engine.healthy:
            raise UnavailableError("the engine has stopped", fix="restart the server")

    async def stats(self) -> Stats | None:
        """Return the engine's snapshot, or the latest known when it is too busy or dead to say."""
        with contextlib.suppress(TimeoutError, WeftError):
            self._last_stats = await asyncio.wait_for(self.engine.stats(), STATS_TIMEOUT_S)
        return self._last_stats

    def head(self, prefix: str, kind: str, model: str | None = None) -> dict[str, Any]:
        """Return the fields that begin every answer and chunk; no model means the server's own."""
        return {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": model or self.model_name,
            "system_fingerprint": f"weft-{weft.__version__}",
        }

    async def start(
        self,
        body: SamplingBody,
        prompts: Sequence[Prompt],
        sampling: SamplingParams,
        request_id: str,
        *,
        param: str,
        arrival_s: float,
    ) -> Generation:
        """Submit every prompt ``n`` times; ``param`` names the field that holds the prompt.

        Raises:
            RequestError: too many choices, a prompt that cannot fit, a full queue.
            UnavailableError: the engine is not alive.
        """
        self.check_alive()
        adapter = self.names.adapter(body.model)
        self._check_choices(body.n, len(prompts))
        for tokens in prompts:
            self.prompts.check_fit(tokens, body.num_asked_tokens, param=param)
        if body.use_beam_search:
            return await self._search_beams(body, prompts, sampling, request_id, arrival_s)
        firsts = [
            engine_request.Request(
                id=f"{request_id}-{index}",
                tokens=tokens,
                sampling=sampling,
                priority=body.priority,
                cache_salt=body.cache_salt,
                adapter=adapter,
                tenant=body.user or "",
            )
            for index, tokens in enumerate(prompts)
        ]
        requests = [
            (index, request)
            for index, first in enumerate(firsts)
            for request in engine_request.forked(first, body.n)
        ]
        generation = Generation(self.engine, self.metrics, arrival_s, prompt_only=body.prompt_only)
        with blame(body.structured_field):
            await generation.submit(requests)
        return generation

    async def _search_beams(
        self,
        body: SamplingBody,
        prompts: Sequence[Prompt],
        sampling: SamplingParams,
        request_id: str,
        arrival_s: float,
    ) -> Generation:
        """Return a generation whose choices are there already."""
        if self.names.adapter(body.model):
            raise UnsupportedError(
                "beams are searched with the model alone", fix="leave the adapter out"
            )
        generation = Generation(self.engine, self.metrics, arrival_s)
        for index, tokens in enumerate(prompts):
            room = self.prompts.max_context - len(tokens)
            params = body.beams(max_tokens=min(sampling.max_tokens or room, room))
            request = engine_request.Request(f"{request_id}-{index}", tokens, sampling)
            for result in await self.engine.beam_search(tokens, params):
                generation.add(index, request, result, self.tokenizer.decode(result.tokens))
        return generation

    def error_event(self, error: Exception) -> str:
        """Return a failure in the middle of a stream, when the status is already sent."""
        return event(describe(error)[1])

    def _check_choices(self, n: int, num_prompts: int) -> None:
        limit = self.config.max_choices
        if n < 1:
            raise RequestError(f"n is {n}", fix="n must be at least 1", param="n")
        if n * num_prompts > limit:
            raise RequestError(
                f"n = {n} for {num_prompts} prompts makes {n * num_prompts} choices",
                fix=f"ask for at most {limit} in one request",
                param="n",
            )


async def read_json(request: Request, config: ServerConfig) -> bytes:
    """Return the body of a JSON request.

    Raises:
        MediaTypeError: it is not declared as JSON (which also keeps other sites' forms out).
        BodyTooLargeError: it is longer than the server accepts; the rest is not read.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise MediaTypeError(
            f"the content type is {media_type or 'missing'!r}",
            fix="send JSON with 'Content-Type: application/json'",
        )
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > config.max_body_bytes:
        raise _too_large(int(declared), config)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > config.max_body_bytes:
            raise _too_large(size, config)
        parts.append(part)
    return b"".join(parts)


def _too_large(size: int, config: ServerConfig) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"the body has {size} bytes or more; the limit is {config.max_body_bytes}",
        fix="send less text, or start the server with a larger max_body_bytes",
    )
