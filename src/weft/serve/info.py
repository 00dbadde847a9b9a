"""Endpoints that describe: models, tokenizer, statistics and metrics."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import weft
from weft.core.errors import RequestError
from weft.serve.backend import Stats
from weft.serve.logprobs import token_text
from weft.serve.metrics import CONTENT_TYPE
from weft.serve.protocol import DetokenizeBody, TokenizeBody, parse
from weft.serve.service import Service, read_json


class InfoEndpoints:
    """The endpoints that generate nothing."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def models(self, _: Request) -> JSONResponse:
        """``GET /v1/models``."""
        return JSONResponse({"object": "list", "data": self._models()})

    async def model(self, request: Request) -> JSONResponse:
        """``GET /v1/models/{model}``."""
        name = request.path_params["model"]
        self._service.names.adapter(name)
        return JSONResponse(next(model for model in self._models() if model["id"] == name))

    async def tokenize(self, request: Request) -> JSONResponse:
        """``POST /tokenize``: the token ids of a text or a conversation."""
        service = self._service
        body = parse(TokenizeBody, await read_json(request, service.config))
        service.names.adapter(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise RequestError(
                "tokenize needs one of prompt and messages", fix="send exactly one", param="prompt"
            )
        if body.messages is not None:
            tokens = await service.prompts.chat(body.messages)
        else:
            tokens = await service.prompts.text(body.prompt or "")
        answer: dict[str, Any] = {
            "tokens": list(tokens),
            "count": len(tokens),
            "max_model_len": service.prompts.max_context,
        }
        if body.return_token_strs:
            answer["token_strs"] = [token_text(service.tokenizer, token) for token in tokens]
        return JSONResponse(answer)

    async def detokenize(self, request: Request) -> JSONResponse:
        """``POST /detokenize``: the text of token ids, special tokens included."""
        service = self._service
        body = parse(DetokenizeBody, await read_json(request, service.config))
        service.names.adapter(body.model)
        service.prompts.check_tokens(body.tokens, param="tokens")
        text = service.tokenizer.decode(body.tokens, skip_special=False)
        return JSONResponse({"prompt": text})

    async def metrics(self, _: Request) -> Response:
        """``GET /metrics``: Prometheus text."""
        return Response(
            self._service.metrics.render(await self._service.stats()), media_type=CONTENT_TYPE
        )

    async def stats(self, _: Request) -> JSONResponse:
        """``GET /v1/stats``: the few numbers the chat page shows."""
        service = self._service
        stats = await service.stats()
        return JSONResponse(
            {
                "model": service.model_name,
                "version": weft.__version__,
                "max_context": service.prompts.max_context,
                "chat": service.prompts.can_chat,
                "healthy": service.engine.healthy and not service.draining,
                "tokens_per_s": round(service.metrics.generation_rate.rate(), 2),
                **(_engine_numbers(stats) if stats else {}),
            }
        )

    def _models(self) -> list[dict[str, Any]]:
        service = self._service
        common = {
            "object": "model",
            "created": service.created,
            "owned_by": "weft",
            "max_model_len": service.prompts.max_context,
        }
        return [{**card, **common} for card in service.names.cards()]


def _engine_numbers(stats: Stats) -> dict[str, float]:
    scheduler = stats.scheduler
    counters = scheduler.counters
    hit_rate = counters.num_prefix_hit_tokens / max(counters.num_prefix_queried_tokens, 1)
    return {
        "num_running": scheduler.num_running,
        "num_waiting": scheduler.num_waiting,
        "kv_usage": round(scheduler.kv_usage, 4),
        "prefix_hit_rate": round(hit_rate, 4),
        "num_preemptions": counters.num_preemptions,
    }
