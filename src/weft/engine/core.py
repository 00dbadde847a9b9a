"""``EngineCore``: scheduler, runner, cache and text of one engine, driven from one thread.

``LLM`` drives it until its prompts are done, ``AsyncEngine`` from a worker thread for ever. All
endings go through here: what the scheduler ends, a stop text, an abort, or a failure while the
text of a request was made. Each takes down one request and leaves no block behind.
"""

from __future__ import annotations

from weft.core.errors import RequestError
from weft.engine.config import EngineConfig, plan_memory
from weft.engine.grammar.compiler import GrammarCompiler
from weft.engine.grammar.state import GrammarState
from weft.engine.outputs import Delta
from weft.engine.runner import ModelRunner
from weft.engine.stats import EngineStats, RequestTimes, Timings
from weft.engine.stream import RequestStream
from weft.models.decoder import Decoder
from weft.nn.kv_cache import KVCache
from weft.sched.admission import check_prompt
from weft.sched.loop import Clock, MonotonicClock, ServingLoop
from weft.sched.plan import SequenceUpdate
from weft.sched.scheduler import Scheduler
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
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer | None = None,
        config: EngineConfig | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.config = config or EngineConfig()
        self.clock = clock or MonotonicClock()
        if tokenizer is not None:
            tokenizer.check_model(model.spec.vocab_size)
        own_eos_ids = tokenizer.eos_ids if tokenizer is not None else ()
        self.eos_ids = tuple(dict.fromkeys((*model.spec.eos_ids, *own_eos_ids)))
        vocab_size = model.spec.vocab_size
        self.grammars = GrammarCompiler(tokenizer, vocab_size) if tokenizer is not None else None
        self.memory = plan_memory(self.config, model)
        cache = KVCache(
            model.spec,
            num_blocks=self.memory.num_blocks,
            block_size=self.memory.block_size,
            num_sequences=self.memory.num_state_slots,
            dtype=self.config.cache_dtype(model.dtype),
            device=model.device,
        )
        scheduler_config = self.config.scheduler(model.spec, self.memory)
        self.scheduler = Scheduler(scheduler_config, eos_ids=self.eos_ids)
        self.runner = ModelRunner(model, cache, deterministic=self.config.deterministic)
        self.loop = ServingLoop(self.scheduler, self.runner, self.clock)
        self.weight_version = 0
        self.num_failed_steps = 0
        self.num_failed_in_a_row = 0
        self.last_failure: Exception | None = None
        self._streams: dict[str, RequestStream] = {}
        self._times: dict[str, RequestTimes] = {}
        self._timings = Timings()

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has anything to do."""
        return self.loop.has_work

    @property
    def num_unfinished(self) -> int:
        """Requests that wait or run."""
        return len(self._streams)

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
        """
        self.check(request)
        grammar = grammar or self.prepare(request)
        stream = RequestStream(
            request, self.tokenizer, frozenset((*self.eos_ids, *request.sampling.stop_token_ids))
        )
        self.loop.submit(request)
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
        ``last_failure``.
        """
        start_s = self.clock.now()
        num_before = self.runner.num_computed_tokens
        updates = self.loop.step()
        now_s = self.clock.now()
        num_tokens = self.runner.num_computed_tokens - num_before
        if self.loop.failure is not None:
            self.last_failure = self.loop.failure
            self.num_failed_steps += 1
            self.num_failed_in_a_row += 1
        elif num_tokens > 0:
            self.num_failed_in_a_row = 0
            self._timings.step_s.observe(now_s - start_s)
            self._timings.step_tokens.observe(num_tokens)
        return [delta for update in updates if (delta := self._advance(update, now_s)) is not None]

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> Delta | None:
        """End a request now; return its last delta, or None if it had already ended."""
        update = self.loop.abort(request_id, reason)
        return None if update is None else self._advance(update, self.clock.now())

    def bump_weight_version(self) -> int:
        """Say that the model's weights have changed; return the new version.

        Prefixes computed with the old weights can no longer be found. Sequences that run go on
        with the keys and values they have.
        """
        self.weight_version += 1
        self.scheduler.set_weight_version(self.weight_version)
        return self.weight_version

    def stats(self) -> EngineStats:
        """Return a snapshot of queues, blocks, counters and latencies."""
        return EngineStats(
            scheduler=self.scheduler.stats(),
            weight_version=self.weight_version,
            num_failed_steps=self.num_failed_steps,
            timings={name: value.snapshot() for name, value in vars(self._timings).items()},
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
            times.end(now_s, self._timings)
            # Does nothing when the scheduler ended the request itself.
            self.scheduler.finish(update.request_id, delta.finish_reason, error=delta.error)
        return delta
