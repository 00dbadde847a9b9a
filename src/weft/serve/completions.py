"""``POST /v1/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from weft.core.errors import WeftError
from weft.serve.backend import Delta
from weft.serve.generation import Choice, Generation
from weft.serve.logprobs import completion_logprobs, echo_logprobs, prompt_logprobs, token_text
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
        adapter = service.names.adapter(body.model)
        prompts = await service.prompts.completion(body.prompt)
        head = service.head("cmpl", "text_completion", adapter)
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
        choices = []
        for choice in generation.choices:
            echo = self._echo(choice, body)
            offset = _length(echo)
            value = self._choice(choice, body, choice.text, choice.deltas, offset=offset)
            value = value if echo is None else _joined(echo, value)
            if body.prompt_logprobs is not None:
                tokens, found = choice.request.tokens, choice.prompt_logprobs or ()
                tokenizer = self._service.tokenizer
                value["prompt_logprobs"] = prompt_logprobs(tokenizer, tokens, found)
            choices.append(value)
        return {**head, "choices": choices, "usage": generation.usage()}

    async def _events(
        self, generation: Generation, body: CompletionBody, head: dict[str, Any]
    ) -> AsyncGenerator[str, None]:
        offsets: dict[int, int] = {}
        extra = {"usage": None} if body.include_usage else {}
        try:
            async with generation:
                async for choice, delta in generation.deltas():
                    if choice.index not in offsets:
                        echo = self._echo(choice, body)
                        offsets[choice.index] = _length(echo)
                        if echo is not None:
                            yield event({**head, "choices": [echo], **extra})
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

    def _echo(self, choice: Choice, body: CompletionBody) -> dict[str, Any] | None:
        """Return the prompt as the beginning of a choice; none if it is not asked for."""
        if not body.echo:
            return None
        tokenizer, tokens = self._service.tokenizer, choice.request.tokens
        logprobs = None
        if body.logprobs is not None:
            found = choice.prompt_logprobs or ()
            logprobs = echo_logprobs(tokenizer, tokens, found, body.logprobs)
        return {
            "index": choice.index,
            "text": tokenizer.decode(tokens, skip_special=False),
            "logprobs": logprobs,
            "finish_reason": None,
        }

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


def _length(echo: dict[str, Any] | None) -> int:
    return 0 if echo is None else len(echo["text"])


def _joined(echo: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """Put an echoed prompt in front of a choice."""
    before, after = echo["logprobs"], value["logprobs"]
    logprobs = None if after is None else {name: before[name] + after[name] for name in after}
    return {**value, "text": echo["text"] + value["text"], "logprobs": logprobs}
