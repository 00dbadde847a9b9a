"""``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from weft.core.errors import WeftError
from weft.serve.backend import Delta
from weft.serve.generation import Choice, Generation
from weft.serve.logprobs import chat_logprobs
from weft.serve.protocol import ChatBody, parse
from weft.serve.service import Service, read_json
from weft.serve.sse import DONE, EventStream, event, until_disconnect


class ChatEndpoint:
    """Answers conversations, whole or streamed."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, request: Request) -> Response:
        service = self._service
        arrival_s = service.metrics.clock()
        body = parse(ChatBody, await read_json(request, service.config))
        service.check_model(body.model)
        sampling = body.to_sampling(service.tokenizer.encode)
        prompt = await service.prompts.chat(body.messages)
        kind = "chat.completion.chunk" if body.stream else "chat.completion"
        head = service.head("chatcmpl", kind)
        starting = service.start(
            body, [prompt], sampling, head["id"], param="messages", arrival_s=arrival_s
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
        self, generation: Generation, body: ChatBody, head: dict[str, Any]
    ) -> dict[str, Any]:
        choices = []
        for choice in generation.choices:
            message = {"role": "assistant", "content": choice.text, "refusal": None}
            value = {"index": choice.index, "message": message}
            choices.append({**value, **self._tail(body, choice, choice.deltas)})
        return {**head, "choices": choices, "usage": generation.usage()}

    async def _events(
        self, generation: Generation, body: ChatBody, head: dict[str, Any]
    ) -> AsyncGenerator[str, None]:
        extra = {"usage": None} if body.include_usage else {}

        def chunk(choice: Choice, delta: dict[str, str], tail: dict[str, Any]) -> str:
            part = {"index": choice.index, "delta": delta, **tail}
            return event({**head, "choices": [part], **extra})

        silence = {"logprobs": None, "finish_reason": None}
        try:
            async with generation:
                for choice in generation.choices:
                    yield chunk(choice, {"role": "assistant", "content": ""}, silence)
                async for choice, delta in generation.deltas():
                    if delta.text or (delta.token is not None and _wants_tokens(body)):
                        tail = self._tail(body, choice, [delta]) | {"finish_reason": None}
                        yield chunk(choice, {"content": delta.text}, tail)
                    if delta.finish_reason is not None:
                        reason = {"logprobs": None, "finish_reason": delta.finish_reason}
                        yield chunk(choice, {}, reason)
            if body.include_usage:
                yield event({**head, "choices": [], "usage": generation.usage()})
        except WeftError as error:
            yield self._service.error_event(error)
        yield DONE

    def _tail(self, body: ChatBody, choice: Choice, deltas: list[Delta]) -> dict[str, Any]:
        tokenizer = self._service.tokenizer
        value: dict[str, Any] = {
            "logprobs": chat_logprobs(tokenizer, deltas) if body.logprobs else None,
            "finish_reason": choice.finish_reason,
        }
        if body.return_token_ids:
            value["token_ids"] = [delta.token for delta in deltas if delta.token is not None]
        return value


def _wants_tokens(body: ChatBody) -> bool:
    return body.logprobs or body.return_token_ids
