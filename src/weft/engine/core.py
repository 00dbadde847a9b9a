"""``EngineCore``: scheduler, runner, cache and text of one engine, driven from one thread.

``LLM`` drives it until its prompts are done, ``AsyncEngine`` from a worker thread for ever. All
endings go through here: what the scheduler ends, a stop text, an abort, or a failure while the
text of a request was made. Each takes down one request and leaves no block behind.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from weft.core.errors import RequestError, UnsupportedError
from weft.engine.adapters.engine import EngineAdapters
from weft.engine.config import EngineConfig
from weft.engine.features import check_features
from weft.engine.grammar.compiler import GrammarCompiler
from weft.engine.grammar.state import GrammarState
from weft.engine.outputs import Delta
from weft.engine.parallel.ranks import Ranks
from weft.engine.parts import build_parts
from weft.engine.pause import Gate
from weft.engine.sleep import Sleeper
from weft.engine.stats import EngineStats, RequestTimes, Timings
from weft.engine.stream import RequestStream
from weft.engine.weights import EngineWeights
from weft.models.decoder import Decoder
from weft.sched.admission import check_prompt
from weft.sched.loop import Clock, MonotonicClock
from weft.sched.plan import SequenceUpdate
from weft.sched.sequence import ending_tokens
from weft.spec.request import FinishReason, Request
from weft.spec.structured import PARAM
from weft.text.tokenizer import Tokenizer


class EngineCore:
    """One engine. Not thread-safe: call it from one thread.

    Args:
        model: A live module; it is used in place, never copied.
        tokenizer: For text and stop texts; none gives tokens only.
        config: Sizes and limits.
        clock: Where times come from.
        ranks: The other processes that have a part of ``model``.
        drafter: The network that speculation drafts with; none loads ``speculation.path``.

    Raises:
        UnsupportedError: features that do not go together.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer | None = None,
        config: EngineConfig | None = None,
        *,
        clock: Clock | None = None,
        ranks: Ranks | None = None,
        drafter: nn.Module | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.config = config or EngineConfig()
        check_features(self.config, model.spec)
        if self.config.parallel.num_ranks > 1 and ranks is None:
            raise UnsupportedError(
                f"a module cannot be spread over {self.config.parallel.num_ranks} ranks",
                fix="give the folder of a checkpoint: LLM.load(folder, tensor_parallel=2)",
            )
        self.clock = clock or MonotonicClock()
        if tokenizer is not None:
            tokenizer.check_model(model.spec.vocab_size)
        own_eos_ids = tokenizer.eos_ids if tokenizer is not None else ()
        self.eos_ids = tuple(dict.fromkeys((*model.spec.eos_ids, *own_eos_ids)))
        vocab_size = model.spec.vocab_size
        self.grammars = GrammarCompiler(tokenizer, vocab_size) if tokenizer is not None else None
        parts = build_parts(
            self.config, model, self.clock, eos_ids=self.eos_ids, ranks=ranks, drafter=drafter
        )
        self.memory, self.scheduler, self.runner = parts.memory, parts.scheduler, parts.runner
        self.loop, self.speculator = parts.loop, parts.speculator
        self.ranks, self._thread = ranks, parts.thread
        self.gate = Gate()
        self.weights = EngineWeights(self)
        self.adapters = EngineAdapters(self, parts.adapters)
        self.sleeper = Sleeper(self)
        self.weight_version = 0
        self.num_failed_steps = 0
        self.num_failed_in_a_row = 0
        self.last_failure: Exception | None = None
        self._streams: dict[str, RequestStream] = {}
        self._times: dict[str, RequestTimes] = {}
        self._timings = Timings()
        # What happened outside of a step; the next one returns it.
        self._news: list[Delta] = []

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has anything to do."""
        return bool(self._news) or (self.gate.is_open and self.loop.has_work)

    @property
    def num_unfinished(self) -> int:
        """Requests that wait or run."""
        return len(self._streams)

    def check_one_process(self, what: str) -> None:
        """Refuse what reaches only this process's part of the model.

        Raises:
            UnsupportedError: other ranks have parts of it.
        """
        if self.ranks is not None:
            raise UnsupportedError(
                f"{what} would reach only one of the ranks that this model is spread over",
                fix="use an engine of one process, or load the engine anew",
            )

    @property
    def broken(self) -> Exception | None:
        """What makes every further step fail, such as a rank that died; none if nothing does."""
        return None if self.ranks is None else self.ranks.failure

    def close(self) -> None:
        """End the threads and processes that compute for this one, if any; idempotent."""
        if self._thread is not None:
            self._thread.close()
        self.adapters.close()
        if self.ranks is not None:
            self.ranks.close()
        self.runner.mover.close()
        self.runner.table.grammars.close()

    @property
    def context_limit(self) -> int:
        """Most tokens one sequence can reach, prompt and output together."""
        return self.scheduler.config.context_limit

    def prepare(self, request: Request) -> GrammarState | None:
        """Return the grammar of a request, none if it asks for no structure.

        This may take seconds and may be called from any thread.

        Raises:
            RequestError: the structure is wrong, or this engine cannot enforce it.
        """
        structured = request.sampling.structured
        if structured is None:
            return None
        if self.grammars is None:
            raise RequestError(
                "a structured output needs a tokenizer, and this engine has none",
                fix="give the engine a tokenizer",
                param=PARAM,
            )
        if not ending_tokens(request, self.eos_ids):
            raise RequestError(
                "a structured output needs an end token, and this model has none",
                fix="name one in stop_token_ids",
                param=PARAM,
            )
        return self.grammars.start(structured)

    def submit(self, request: Request, grammar: GrammarState | None = None) -> RequestStream:
        """Queue a request; the stream returned gives its completion once it has ended.

        Args:
            request: What is asked.
            grammar: What ``prepare`` returned; without it a grammar is compiled here and now.

        Raises:
            ContextLengthError: its prompt can never fit.
            QueueFullError: too many requests are waiting.
            RequestError: an empty prompt, an id in use, or tokens the model does not have.
            ResourceError: the engine is asleep, or its weights are half written.
        """
        self.gate.check_takes_requests()
        self.check(request)
        request = self.adapters.resolve(request)
        grammar = grammar or self.prepare(request)
        stream = RequestStream(
            request, self.tokenizer, frozenset((*self.eos_ids, *request.sampling.stop_token_ids))
        )
        self.loop.submit(request)
        self.adapters.hold(request)
        if grammar is not None:
            self.runner.table.grammars.prepare(request.id, grammar)
        self._streams[request.id] = stream
        self._times[request.id] = RequestTimes(request.arrival_s)
        return stream

    def check(self, request: Request) -> None:
        """Refuse what can never be served, whatever else is going on.

        Raises:
            ContextLengthError, RequestError: see ``submit``.
        """
        check_prompt(request, self.scheduler.config)
        self.adapters.resolve(request)
        vocab_size = self.model.spec.vocab_size
        for param, tokens in (
            ("prompt", request.tokens),
            *request.sampling.named_token_ids.items(),
        ):
            if tokens and not (min(tokens) >= 0 and max(tokens) < vocab_size):
                wrong = next(token for token in tokens if not 0 <= token < vocab_size)
                raise RequestError(
                    f"token {wrong} does not exist; the model has tokens 0 to {vocab_size - 1}",
                    fix="encode the text with this model's tokenizer",
                    param=param,
                )
        if request.sampling.stop and self.tokenizer is None:
            raise RequestError(
                "stop texts need a tokenizer, and this engine has none",
                fix="use stop_token_ids, or give the engine a tokenizer",
                param="stop",
            )

    def step(self) -> list[Delta]:
        """Run one step and return the news of every request that moved or ended.

        A forward pass that raises ends the requests of that step with ERROR; the exception is
        ``last_failure``. While the engine is paused or asleep nothing is computed.
        """
        if self.gate.is_open:
            self._step()
        news, self._news = self._news, []
        return news

    def drain(self) -> None:
        """Settle every step that is under way; what it brings is the news of the next ``step``."""
        self._take_in(self.loop.drain())

    def _step(self) -> None:
        start_s = self.clock.now()
        num_before = self.loop.num_settled_tokens
        updates = self.loop.step()
        num_tokens = self.loop.num_settled_tokens - num_before
        if num_tokens > 0:
            self.num_failed_in_a_row = 0
            self._timings.step_s.observe(self.clock.now() - start_s)
            self._timings.step_tokens.observe(num_tokens)
        self._take_in(updates)

    def _take_in(self, updates: Iterable[SequenceUpdate]) -> None:
        if self.loop.failure is not None:
            self.last_failure = self.loop.failure
            self.num_failed_steps += 1
            self.num_failed_in_a_row += 1
        now_s = self.clock.now()
        deltas = [self._advance(update, now_s) for update in updates]
        self._news += [delta for delta in deltas if delta is not None]

    def abort_all(self, reason: FinishReason = FinishReason.ABORT) -> None:
        """End every request; their last deltas are the news of the next ``step``."""
        deltas = [self.abort(request_id, reason) for request_id in list(self._streams)]
        self._news += [delta for delta in deltas if delta is not None]

    def flush_prefixes(self) -> None:
        """Forget all cached prefixes; requests under way are computed again."""
        self.drain()
        self.scheduler.flush_prefixes()

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> Delta | None:
        """End a request now; return its last delta, or None if it had already ended."""
        update = self.loop.abort(request_id, reason)
        return None if update is None else self._advance(update, self.clock.now())

    def bump_weight_version(self, version: int | None = None) -> int:
        """Say that the model's weights have changed; return the new version, by default the next.

        Prefixes computed with the old weights can no longer be found. Sequences that run go on
        with the keys and values they have.
        """
        self.drain()
        self.weight_version = self.weight_version + 1 if version is None else version
        self.scheduler.set_weight_version(self.weight_version)
        return self.weight_version

    def stats(self) -> EngineStats:
        """Return a snapshot of queues, blocks, counters and latencies."""
        return EngineStats(
            scheduler=self.scheduler.stats(),
            weight_version=self.weight_version,
            num_failed_steps=self.num_failed_steps,
            timings={name: value.snapshot() for name, value in vars(self._timings).items()},
            speculation=None if self.speculator is None else self.speculator.stats(),
        )

    def _advance(self, update: SequenceUpdate, now_s: float) -> Delta | None:
        """Turn an update into a delta and end the request where its text says so."""
        stream = self._streams.get(update.request_id)
        if stream is None:
            return None
        times = self._times[update.request_id]
        if update.token is not None:
            times.token(now_s, self._timings)
            if not stream.tokens:
                stream.prompt_logprobs = self.runner.prompts.take(update.request_id)
        try:
            delta = stream.push(update, self.weight_version)
        except Exception as error:
            message = f"making text failed: {type(error).__name__}: {error}"
            delta = stream.fail(message, self.weight_version)
        if delta.finish_reason is not None:
            del self._streams[update.request_id], self._times[update.request_id]
            self.runner.table.grammars.drop(update.request_id)
            self.adapters.release(update.request_id)
            times.end(now_s, self._timings)
            # Does nothing when the scheduler ended the request itself.
            self.scheduler.finish(update.request_id, delta.finish_reason, error=delta.error)
        return delta
