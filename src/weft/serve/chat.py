"""``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from weft.core.errors import UnsupportedError, WeftError
from weft.serve.backend import Delta
from weft.serve.generation import Choice, Generation
from weft.serve.logprobs import chat_logprobs, prompt_logprobs
from weft.serve.prompts import Prompt
from weft.serve.protocol import ChatBody, parse
from weft.serve.service import Service, read_json
from weft.serve.sse import DONE, EventStream, event, until_disconnect
from weft.serve.structured import blame
from weft.serve.tool_choice import constrain
from weft.serve.turns import Turn, chunk_of, message_of
from weft.text.parsers.reasoning import ReasoningParser
from weft.text.parsers.tools import ToolParser


class ChatEndpoint:
    """Answers conversations, whole or streamed."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, request: Request) -> Response:
        service = self._service
        arrival_s = service.metrics.clock()
        body = parse(ChatBody, await read_json(request, service.config))
        adapter = service.names.adapter(body.model)
        sampling = body.to_sampling(service.tokenizer.encode)
        tools = body.offered_tools
        prompt = await service.prompts.chat(
            body.messages, tools=tools, variables=body.chat_template_kwargs
        )
        if tools is not None and service.turns.tools is None:
            raise UnsupportedError(
                "this model's chat template has no tool calls", fix="leave 'tools' out"
            )
        inside = service.turns.reasoning and service.prompts.opens_reasoning(prompt)
        with blame(body.structured_field):
            sampling = constrain(sampling, body, service.turns, inside_thoughts=inside)
        kind = "chat.completion.chunk" if body.stream else "chat.completion"
        head = service.head("chatcmpl", kind, adapter)
        starting = service.start(
            body, [prompt], sampling, head["id"], param="messages", arrival_s=arrival_s
        )
        generation = await until_disconnect(request, starting)
        headers = {"X-Request-Id": head["id"]}
        if body.stream:
            events = self._events(generation, body, head, prompt)
            return EventStream(events, on_close=generation.abort, headers=headers)
        async with generation:
            await until_disconnect(request, generation.finish())
        answer = self._whole(generation, body, head, prompt)
        return JSONResponse(answer, headers=headers)

    def _turn(self, body: ChatBody, prompt: Prompt) -> Turn:
        """Return the reader of one choice's turn."""
        turns, reasoning, tools = self._service.turns, None, None
        if turns.reasoning:
            inside = self._service.prompts.opens_reasoning(prompt)
            reasoning = ReasoningParser(starts_inside=inside)
        if turns.tools is not None and body.offered_tools is not None:
            schemas = {tool.function.name: tool.function.parameters for tool in body.tools}
            tools = ToolParser(turns.tools, schemas)
        return Turn(reasoning, tools, None if body.parallel_tool_calls else 1)

    def _whole(
        self, generation: Generation, body: ChatBody, head: dict[str, Any], prompt: Prompt
    ) -> dict[str, Any]:
        choices = []
        for choice in generation.choices:
            turn = self._turn(body, prompt)
            message = message_of(turn.read(choice.text))
            value = {"index": choice.index, "message": message}
            choices.append({**value, **self._tail(body, choice, turn, choice.deltas)})
        answer = {**head, "choices": choices, "usage": generation.usage()}
        if body.prompt_logprobs is not None:
            entries = generation.choices[0].prompt_logprobs or ()
            tokenizer = self._service.tokenizer
            answer["prompt_logprobs"] = prompt_logprobs(tokenizer, prompt, entries)
        return answer

    async def _events(
        self, generation: Generation, body: ChatBody, head: dict[str, Any], prompt: Prompt
    ) -> AsyncGenerator[str, None]:
        extra = {"usage": None} if body.include_usage else {}

        def chunk(choice: Choice, delta: dict[str, Any], tail: dict[str, Any]) -> str:
            part = {"index": choice.index, "delta": delta, **tail}
            return event({**head, "choices": [part], **extra})

        silence = {"logprobs": None, "finish_reason": None}
        turns = [self._turn(body, prompt) for _ in generation.choices]
        try:
            async with generation:
                for choice in generation.choices:
                    yield chunk(choice, {"role": "assistant", "content": ""}, silence)
                async for choice, delta in generation.deltas():
                    turn = turns[choice.index]
                    num_calls = turn.num_calls
                    part = turn.push(delta)
                    if not part.is_empty or (delta.token is not None and _wants_tokens(body)):
                        tail = self._tail(body, choice, turn, [delta]) | {"finish_reason": None}
                        yield chunk(choice, chunk_of(part, num_calls), tail)
                    if delta.finish_reason is not None:
                        reason = turn.finish_reason(delta.finish_reason)
                        yield chunk(choice, {}, {"logprobs": None, "finish_reason": reason})
            if body.include_usage:
                yield event({**head, "choices": [], "usage": generation.usage()})
        except WeftError as error:
            yield self._service.error_event(error)
        yield DONE

    def _tail(
        self, body: ChatBody, choice: Choice, turn: Turn, deltas: list[Delta]
    ) -> dict[str, Any]:
        tokenizer = self._service.tokenizer
        value: dict[str, Any] = {
            "logprobs": chat_logprobs(tokenizer, deltas) if body.logprobs else None,
            "finish_reason": turn.finish_reason(choice.finish_reason),
        }
        if body.return_token_ids:
            value["token_ids"] = [delta.token for delta in deltas if delta.token is not None]
        return value


def _wants_tokens(body: ChatBody) -> bool:
    return body.logprobs or body.return_token_ids
