"""One HTTP request as one or many engine requests: merged, timed, and aborted if left early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from weft.engine.beam import BeamResult
from weft.serve.backend import Delta, Engine, PromptLogprobs
from weft.serve.errors import GenerationError
from weft.serve.metrics import SequenceTimer, ServerMetrics
from weft.spec.request import FinishReason, Request

_FAILURES: dict[FinishReason, tuple[int, str, str]] = {
    FinishReason.ERROR: (500, "generation_failed", "the generation failed"),
    FinishReason.TIMEOUT: (504, "timeout", "the request's deadline passed"),
    FinishReason.ABORT: (503, "aborted", "the request was aborted by the server"),
}


@dataclass
class Choice:
    """One sequence: what was asked of the engine and what came back so far."""

    index: int
    prompt_index: int
    request: Request
    stream: AsyncIterator[Delta]
    timer: SequenceTimer
    prompt_only: bool = False
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0
    prompt_logprobs: PromptLogprobs | None = None

    def take(self, delta: Delta) -> None:
        """Add what a delta brings.

        Raises:
            GenerationError: the sequence ended for a reason that is no answer.
        """
        if delta.prompt_logprobs is not None:
            self.prompt_logprobs = delta.prompt_logprobs
        self.num_cached_tokens = max(self.num_cached_tokens, delta.usage.num_cached_tokens)
        if not self.prompt_only:
            self._take_output(delta)
        if delta.finish_reason is None:
            return
        self.finish_reason = delta.finish_reason
        self.timer.finish(delta.finish_reason)
        if delta.finish_reason in _FAILURES:
            status, code, message = _FAILURES[delta.finish_reason]
            detail = f"{message}: {delta.error}" if delta.error else message
            raise GenerationError(detail, status=status, code=code)
        if self.prompt_only:
            self.finish_reason = FinishReason.LENGTH

    def _take_output(self, delta: Delta) -> None:
        self.text += delta.text
        if delta.token is not None:
            self.tokens.append(delta.token)
            self.deltas.append(delta)
            self.timer.token()


class Generation:
    """The sequences of one HTTP request.

    Use it as an async context manager: whatever is unfinished on exit (the client went away, a
    sibling failed) is aborted in the engine.

    Args:
        engine: Runs the sequences.
        metrics: Counts them.
        arrival_s: When the HTTP request came.
        prompt_only: Leave out the one token that an engine cannot help drawing.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: ServerMetrics,
        arrival_s: float,
        *,
        prompt_only: bool = False,
    ) -> None:
        self._prompt_only = prompt_only
        self._engine = engine
        self._metrics = metrics
        self._arrival_s = arrival_s
        self.choices: list[Choice] = []

    async def __aenter__(self) -> Generation:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.abort()

    async def submit(self, requests: Sequence[tuple[int, Request]]) -> None:
        """Queue (prompt index, request) pairs; all of them or, after a refusal, none.

        Raises:
            RequestError: one of them can never run, or too many are waiting.
        """
        # Together, because an engine accepts requests only between two of its steps.
        accepting = [asyncio.ensure_future(self._engine.submit(it)) for _, it in requests]
        try:
            streams = await asyncio.gather(*accepting)
        except BaseException:
            await _abandon(accepting)
            for _, request in requests:
                self._engine.abort(request.id)
            raise
        for (prompt_index, request), stream in zip(requests, streams, strict=True):
            timer = self._metrics.timer(len(request.tokens), self._arrival_s)
            index = len(self.choices)
            self.choices.append(
                Choice(index, prompt_index, request, stream, timer, self._prompt_only)
            )

    def add(self, prompt_index: int, request: Request, result: BeamResult, text: str) -> None:
        """Add a choice that is complete."""
        timer = self._metrics.timer(len(request.tokens), self._arrival_s)
        choice = Choice(len(self.choices), prompt_index, request, _nothing(), timer)
        choice.text, choice.tokens = text, list(result.tokens)
        choice.finish_reason = FinishReason.STOP if result.finished else FinishReason.LENGTH
        for _ in result.tokens:
            timer.token()
        timer.finish(choice.finish_reason)
        self.choices.append(choice)

    async def deltas(self) -> AsyncGenerator[tuple[Choice, Delta], None]:
        """Yield the deltas of all choices as they come, each already added to its choice.

        Raises:
            GenerationError: a sequence failed; its siblings are aborted on exit.
        """
        merged = _merge([choice.stream for choice in self.choices])
        try:
            async for index, delta in merged:
                choice = self.choices[index]
                choice.take(delta)
                if delta.prompt_logprobs is not None:  # scored once for all samples of a prompt
                    for other in self.choices:
                        if other.prompt_index == choice.prompt_index:
                            other.prompt_logprobs = delta.prompt_logprobs
                yield choice, delta
        finally:
            await merged.aclose()

    async def finish(self) -> None:
        """Run every choice to its end."""
        deltas = self.deltas()
        try:
            async for _ in deltas:
                pass
        finally:
            await deltas.aclose()

    def abort(self) -> None:
        """Abort every choice that has not finished."""
        for choice in self.choices:
            if choice.finish_reason is None:
                choice.finish_reason = FinishReason.ABORT
                choice.timer.finish(FinishReason.ABORT)
                self._engine.abort(choice.request.id)

    def usage(self) -> dict[str, Any]:
        """Return OpenAI's usage object; a prompt with several choices counts once."""
        prompts = {choice.prompt_index: choice for choice in self.choices}
        cached = dict.fromkeys(prompts, 0)
        for choice in self.choices:
            known = cached[choice.prompt_index]
            cached[choice.prompt_index] = max(known, choice.num_cached_tokens)
        num_prompt = sum(len(choice.request.tokens) for choice in prompts.values())
        num_generated = sum(len(choice.tokens) for choice in self.choices)
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_generated,
            "total_tokens": num_prompt + num_generated,
            "prompt_tokens_details": {"cached_tokens": sum(cached.values())},
        }


async def _nothing() -> AsyncIterator[Delta]:
    """Return the stream of a choice that is complete."""
    return
    yield


async def _merge(
    streams: Sequence[AsyncIterator[Delta]],
) -> AsyncGenerator[tuple[int, Delta], None]:
    """Yield (stream index, item) in order of arrival; the first failure ends it."""
    queue: asyncio.Queue[tuple[int, Delta | BaseException | None]] = asyncio.Queue()

    async def pump(index: int, stream: AsyncIterator[Delta]) -> None:
        try:
            async for delta in stream:
                queue.put_nowait((index, delta))
            queue.put_nowait((index, None))
        except Exception as error:
            queue.put_nowait((index, error))

    tasks = [asyncio.create_task(pump(*pair)) for pair in enumerate(streams)]
    try:
        num_open = len(tasks)
        while num_open:
            index, item = await queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                num_open -= 1
            else:
                yield index, item
    finally:
        await _abandon(tasks)


async def _abandon(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
