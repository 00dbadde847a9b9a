"""``AsyncEngine``: one worker thread runs the engine, any number of coroutines wait for it.

Between two steps the worker carries out what coroutines have asked for (submit, abort, new
weights), so the core is only ever touched by one thread. News travels back once per step and event
loop. A request ends for its consumer in exactly one way: a delta with a finish reason.

Health is told from the outside: ``healthy`` is false when the thread has died, when one step has
lasted longer than ``stall_timeout_s``, or when several steps in a row have failed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import torch

from weft.adapt.adapter import Adapter
from weft.checkpoint.transfer import LoadReport
from weft.core.errors import ResourceError, WeftError
from weft.engine.adapters.engine import AdapterSource
from weft.engine.adapters.store import AdapterInfo
from weft.engine.beam import BeamParams, BeamResult, BeamSearches
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.delivery import DeltaStream, Mailbox, Post
from weft.engine.grammar.state import GrammarState
from weft.engine.load import open_folder
from weft.engine.outputs import Delta, Usage
from weft.engine.parallel.ranks import Ranks
from weft.engine.pause import PauseMode, pause, resume
from weft.engine.sleep import TAGS, Level, SleepReport
from weft.engine.stats import EngineStats
from weft.engine.weights import LoadFormat, NamedTensors, UpdateReport
from weft.engine.worker import Worker
from weft.models.decoder import Decoder
from weft.sched.loop import Clock
from weft.spec.request import FinishReason, Request
from weft.text.tokenizer import Tokenizer

ResultT = TypeVar("ResultT")

_MAX_FAILED_STEPS = 3


class AsyncEngine:
    """An engine behind a thread.

    Args:
        model: A live module, used in place.
        tokenizer: For text and stop texts.
        config: Sizes and limits.
        clock: Where times come from; tests pass their own.
        ranks: The other processes that have a part of ``model`` (``weft.engine.parallel``).
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer | None = None,
        config: EngineConfig | None = None,
        *,
        clock: Clock | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.core = EngineCore(model, tokenizer, config, clock=clock, ranks=ranks)
        self._mailboxes: dict[str, Mailbox] = {}
        self._searches = BeamSearches(self.core)
        self._draining = False
        self._worker = Worker(
            "weft-engine",
            has_work=lambda: self.core.has_work,
            step=self._step,
            end=self._end,
        )

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        config: EngineConfig | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        load_format: LoadFormat = "auto",
        tensor_parallel: int | None = None,
    ) -> AsyncEngine:
        """Load a Hugging Face folder and start serving it; "dummy" draws random weights.

        ``tensor_parallel`` processes share every layer (``EngineConfig.parallel``).
        """
        opened = open_folder(
            path,
            config=config,
            dtype=dtype,
            device=device,
            load_format=load_format,
            tensor_parallel=tensor_parallel,
        )
        engine = cls(opened.model, opened.tokenizer, opened.config, ranks=opened.ranks)
        engine.core.weights.source = opened.source
        return engine

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer; safe to use from any thread."""
        return self.core.tokenizer

    @property
    def context_limit(self) -> int:
        """Most tokens one sequence can reach, prompt and output together."""
        return self.core.context_limit

    def now(self) -> float:
        """Return the engine's time in seconds: what ``arrival_s`` and ``deadline_s`` refer to."""
        return self.core.clock.now()

    # What coroutines call.

    async def submit(self, request: Request) -> DeltaStream:
        """Queue a request and return its deltas once it is accepted.

        Raises:
            ContextLengthError, QueueFullError, RequestError: the request is refused.
            ResourceError: the engine is draining, closed or dead.
        """
        self._refuse_if_ending()
        grammar = None
        if request.sampling.structured is not None:
            # Compiled on a thread of its own: neither steps nor other coroutines wait for it.
            grammar = await asyncio.to_thread(self.core.prepare, request)
        mailbox = Mailbox(asyncio.get_running_loop())
        accepted = self._worker.ask(lambda: self._accept(request, mailbox, grammar))
        try:
            await asyncio.wrap_future(accepted)
        except asyncio.CancelledError:
            self._worker.tell(lambda: self._abort_own(request.id, mailbox))
            raise
        return DeltaStream(request.id, mailbox, self.abort)

    async def generate(self, request: Request) -> AsyncIterator[Delta]:
        """Submit a request and yield its deltas; leaving the loop early aborts it."""
        async with await self.submit(request) as stream:
            async for delta in stream:
                yield delta

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        """End a request before its next step; callable from any thread, idempotent."""
        self._worker.tell(lambda: self._abort(request_id, reason))

    async def beam_search(self, prompt: Sequence[int], params: BeamParams) -> list[BeamResult]:
        """Return the likeliest continuations of a prompt, best first (``weft.engine.beam``).

        Raises:
            ConfigError, ContextLengthError, QueueFullError, RequestError: it is refused.
            ResourceError: the engine is ending or asleep, or a hypothesis could not be computed.
        """
        self._refuse_if_ending()
        answer: Future[list[BeamResult]] = Future()
        answer.set_running_or_notify_cancel()

        def done(found: list[BeamResult] | WeftError) -> None:
            if isinstance(found, WeftError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        started = self._worker.ask(lambda: self._searches.start(prompt, params, done))
        try:
            await asyncio.wrap_future(started)
            return await asyncio.wrap_future(answer)
        except asyncio.CancelledError:
            self._worker.tell(lambda: started.result()() if started.done() else None)
            raise

    async def bump_weight_version(self) -> int:
        """Say that the weights have changed in place; return the new version."""
        return await self.run_between_steps(self.core.bump_weight_version)

    async def pause(self, mode: PauseMode = "abort") -> None:
        """Compute no further steps; new requests wait (``weft.engine.pause``)."""
        await self.run_between_steps(lambda: pause(self.core, mode))

    async def resume(self) -> None:
        """Compute again."""
        await self.run_between_steps(lambda: resume(self.core))

    async def sleep(self, tags: Iterable[str] = TAGS, *, level: Level = 1) -> SleepReport:
        """Let go of memory; new requests are refused (``weft.engine.sleep``)."""
        return await self.run_between_steps(lambda: self.core.sleeper.sleep(tags, level=level))

    async def wake(self, tags: Iterable[str] = TAGS) -> SleepReport:
        """Take back memory that was let go."""
        return await self.run_between_steps(lambda: self.core.sleeper.wake(tags))

    async def update_weights(
        self, tensors: NamedTensors, *, version: int | None = None, partial: bool = False
    ) -> UpdateReport:
        """Replace weights by named tensors (``EngineWeights.update``)."""
        return await self.run_between_steps(
            lambda: self.core.weights.update(tensors, version=version, partial=partial)
        )

    async def reload_weights(
        self, folder: str | Path | None = None, *, version: int | None = None
    ) -> LoadReport:
        """Load the weights again, in place (``EngineWeights.reload``)."""
        return await self.run_between_steps(
            lambda: self.core.weights.reload(folder, version=version)
        )

    async def abort_prefix(self, prefix: str) -> int:
        """End all requests whose id begins so; return how many there were."""

        def abort() -> int:
            ids = [request_id for request_id in self._mailboxes if request_id.startswith(prefix)]
            for request_id in ids:
                self._abort(request_id, FinishReason.ABORT)
            return len(ids)

        return await self.run_between_steps(abort)

    async def flush_prefixes(self) -> None:
        """Forget all cached prefixes."""
        await self.run_between_steps(self.core.flush_prefixes)

    async def load_adapter(
        self, name: str, source: AdapterSource, *, replace: bool = False
    ) -> AdapterInfo:
        """Load an adapter while requests run; files are read beside the steps.

        Raises:
            ConfigError, InputFileError, UnsupportedError, CheckpointError: it cannot be used.
        """
        adapters = self.core.adapters
        read = source
        if not isinstance(source, Adapter) and adapters.enabled:
            read = await asyncio.to_thread(adapters.read, source)
        folder = "" if isinstance(source, Adapter) else str(source)
        return await self.run_between_steps(
            lambda: adapters.load(name, read, folder=folder, replace=replace)
        )

    async def unload_adapter(self, name: str) -> None:
        """Take an adapter's name away; requests under way finish with it."""
        await self.run_between_steps(lambda: self.core.adapters.unload(name))

    @property
    def adapters(self) -> Sequence[AdapterInfo]:
        """The adapters that are loaded, by name; safe to use from any thread."""
        return self.core.adapters.list()

    async def stats(self) -> EngineStats:
        """Return a snapshot taken between two steps."""
        return await asyncio.wrap_future(self._worker.ask(self.core.stats))

    async def run_between_steps(self, call: Callable[[], ResultT]) -> ResultT:
        """Run ``call`` in the worker while no step is running, such as to update weights."""
        return await asyncio.wrap_future(self._worker.ask(lambda: self._between_steps(call)))

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests and wait for the others; True when none is left."""
        self._draining = True
        end_s = time.monotonic() + timeout_s
        while self.num_unfinished and time.monotonic() < end_s:
            await asyncio.sleep(0.01)
        return not self.num_unfinished

    async def close(self, timeout_s: float = 10.0) -> None:
        """Abort what is left and end the thread; idempotent."""
        await asyncio.to_thread(self.shutdown, timeout_s)

    def shutdown(self, timeout_s: float = 10.0) -> None:
        """Do what ``close`` does, for callers without an event loop."""
        self._draining = True
        self._worker.stop(timeout_s)
        self.core.close()

    @property
    def healthy(self) -> bool:
        """Whether the worker lives, moves and computes."""
        return (
            self._worker.is_alive(self.core.config.stall_timeout_s)
            and self.core.num_failed_in_a_row < _MAX_FAILED_STEPS
            and self.core.broken is None
        )

    @property
    def state(self) -> str:
        """One word: "running", "paused", "asleep" or "torn" (``weft.engine.pause``)."""
        return self.core.gate.state

    @property
    def asleep(self) -> frozenset[str]:
        """Tags of the memory that was let go (``weft.engine.sleep``)."""
        return self.core.gate.asleep

    @property
    def weight_version(self) -> int:
        """Version of the weights that draw the next token."""
        return self.core.weight_version

    @property
    def draining(self) -> bool:
        """Whether new requests are refused."""
        return self._draining or self._worker.ended

    @property
    def num_unfinished(self) -> int:
        """Requests that wait or run; a beam search is one."""
        return len(self._mailboxes) + len(self._searches)

    @property
    def failure(self) -> BaseException | None:
        """What killed the worker, or else what the latest failed step raised."""
        return self._worker.failure or self.core.broken or self.core.last_failure

    # What the worker runs.

    def _step(self) -> None:
        self._deliver(self._searches.take(self.core.step()))

    def _between_steps(self, call: Callable[[], ResultT]) -> ResultT:
        self.core.drain()
        return call()

    def _accept(self, request: Request, mailbox: Mailbox, grammar: GrammarState | None) -> None:
        self._refuse_if_ending()
        self.core.submit(request, grammar)
        self._mailboxes[request.id] = mailbox

    def _abort(self, request_id: str, reason: FinishReason) -> None:
        delta = self.core.abort(request_id, reason)
        if delta is not None:
            self._deliver([delta])

    def _abort_own(self, request_id: str, mailbox: Mailbox) -> None:
        # A refused request may have had the id of another one, which must live on.
        if self._mailboxes.get(request_id) is mailbox:
            self._abort(request_id, FinishReason.ABORT)

    def _deliver(self, deltas: list[Delta]) -> None:
        post = Post()
        for delta in deltas:
            post.add(self._mailboxes[delta.request_id], delta)
            if delta.finish_reason is not None:
                del self._mailboxes[delta.request_id]
        for request_id in post.send():
            if self._mailboxes.pop(request_id, None) is not None:
                self.core.abort(request_id)

    def _end(self) -> None:
        """Give every consumer its last answer."""
        self._searches.fail_all(ResourceError("the engine has ended"))
        failure = self._worker.failure
        if failure is None:
            for request_id in list(self._mailboxes):
                self._abort(request_id, FinishReason.ABORT)
            return
        post, error = Post(), f"the engine died: {type(failure).__name__}: {failure}"
        for request_id, mailbox in self._mailboxes.items():
            post.add(mailbox, _death(request_id, error, self.core.weight_version))
        self._mailboxes.clear()
        post.send()

    # Used by both sides.

    def _refuse_if_ending(self) -> None:
        failure = self._worker.failure
        if failure is not None:
            raise ResourceError(
                f"the engine has died: {type(failure).__name__}: {failure}",
                fix="restart the engine",
            )
        if self.draining:
            raise ResourceError(
                "the engine is shutting down and takes no new requests", fix="try another replica"
            )


def _death(request_id: str, error: str, weight_version: int) -> Delta:
    """Return the last delta of a request whose engine can no longer be asked about it."""
    return Delta(
        request_id=request_id,
        text="",
        token=None,
        logprob=0.0,
        top_logprobs=(),
        weight_version=weight_version,
        finish_reason=FinishReason.ERROR,
        stop_text=None,
        error=error,
        usage=Usage(0, 0, 0),
    )
