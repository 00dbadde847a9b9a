"""``POST /v1/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from weft.core.errors import WeftError
from weft.serve.backend import Delta
from weft.serve.generation import Choice, Generation
from weft.serve.logprobs import completion_logprobs, token_text
from weft.serve.protocol import CompletionBody, parse
from weft.serve.service import Service, read_json
from weft.serve.sse import DONE, EventStream, event, until_disconnect


class CompletionEndpoint:
    """Answers completion requests, whole or streamed."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, request: Request) -> Response:
        service = self._service
        arrival_s = service.metrics.clock()
        body = parse(CompletionBody, await read_json(request, service.config))
        service.check_model(body.model)
        prompts = await service.prompts.completion(body.prompt)
        head = service.head("cmpl", "text_completion")
        sampling = body.to_sampling(service.tokenizer.encode)
        starting = service.start(
            body, prompts, sampling, head["id"], param="prompt", arrival_s=arrival_s
        )
        generation = await until_disconnect(request, starting)
        headers = {"X-Request-Id": head["id"]}
        if body.stream:
            events = self._events(generation, body, head)
            return EventStream(events, on_close=generation.abort, headers=headers)
        async with generation:
            await until_disconnect(request, generation.finish())
        answer = self._whole(generation, body, head)
        return JSONResponse(answer, headers=headers)

    def _whole(
        self, generation: Generation, body: CompletionBody, head: dict[str, Any]
    ) -> dict[str, Any]:
        choices = [
            self._choice(choice, body, choice.text, choice.deltas, offset=0)
            for choice in generation.choices
        ]
        return {**head, "choices": choices, "usage": generation.usage()}

    async def _events(
        self, generation: Generation, body: CompletionBody, head: dict[str, Any]
    ) -> AsyncGenerator[str, None]:
        offsets = [0] * len(generation.choices)
        extra = {"usage": None} if body.include_usage else {}
        try:
            async with generation:
                async for choice, delta in generation.deltas():
                    silent = not delta.text and delta.finish_reason is None
                    if silent and body.logprobs is None and not body.return_token_ids:
                        continue
                    offset = offsets[choice.index]
                    part = self._choice(choice, body, delta.text, [delta], offset=offset)
                    yield event({**head, "choices": [part], **extra})
                    if delta.token is not None:
                        offsets[choice.index] += len(
                            token_text(self._service.tokenizer, delta.token)
                        )
            if body.include_usage:
                yield event({**head, "choices": [], "usage": generation.usage()})
        except WeftError as error:
            yield self._service.error_event(error)
        yield DONE

    def _choice(
        self,
        choice: Choice,
        body: CompletionBody,
        text: str,
        deltas: list[Delta],
        *,
        offset: int,
    ) -> dict[str, Any]:
        tokenizer = self._service.tokenizer
        value: dict[str, Any] = {
            "index": choice.index,
            "text": text,
            "logprobs": None
            if body.logprobs is None
            else completion_logprobs(tokenizer, deltas, offset=offset),
            "finish_reason": choice.finish_reason,
        }
        if body.return_token_ids:
            value["token_ids"] = [delta.token for delta in deltas if delta.token is not None]
            value["prompt_token_ids"] = list(choice.request.tokens)
        return value
