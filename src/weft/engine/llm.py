"""``LLM``: the engine for programs that have all their prompts at hand.

Bound to a live module it shares the very tensors with whoever trains it::

    llm = LLM(model, tokenizer)            # no copy
    completions = llm.generate(prompts, SamplingParams(max_tokens=8), num_samples=8)
    optimizer.step()                       # changes the tensors in place
    llm.bump_weight_version()              # prefixes of the old weights are no longer found
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from weft.core.errors import UnsupportedError
from weft.engine.adapters.engine import AdapterSource
from weft.engine.adapters.store import AdapterInfo
from weft.engine.beam import BeamParams, BeamResult, run_searches
from weft.engine.config import EngineConfig
from weft.engine.contrastive import ContrastiveParams, ContrastiveResult, contrastive_search
from weft.engine.core import EngineCore
from weft.engine.load import open_folder
from weft.engine.outputs import Completion, Delta
from weft.engine.parallel.ranks import Ranks
from weft.engine.pause import PauseMode, pause, resume
from weft.engine.prompts import (
    Prompt,
    adapter_per_prompt,
    list_prompts,
    sampling_per_prompt,
)
from weft.engine.score import score_sequences
from weft.engine.sleep import TAGS, Level, SleepReport
from weft.engine.stats import EngineStats
from weft.engine.stream import RequestStream
from weft.engine.weights import EngineWeights, LoadFormat
from weft.models.decoder import Decoder
from weft.sched.loop import Clock
from weft.spec.request import Request, forked
from weft.spec.sampling import SamplingParams
from weft.text.chat import Message
from weft.text.render import Renderer
from weft.text.tokenizer import Tokenizer


class LLM:
    """Generates, chats and scores with one model. Not thread-safe.

    Args:
        model: A live module; it is used in place.
        tokenizer: None gives an engine of tokens only.
        config: Sizes and limits.
        clock: Where times come from; tests pass their own.
        ranks: The other processes that have a part of ``model`` (``weft.engine.parallel``).
        drafter: The network that speculation drafts with; none loads ``speculation.path``.

    Raises:
        TokenizerError: the tokenizer has more tokens than the model.
        ResourceError: the KV cache does not fit.
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
        self.core = EngineCore(model, tokenizer, config, clock=clock, ranks=ranks, drafter=drafter)
        self._request_ids = itertools.count()

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
    ) -> LLM:
        """Load a Hugging Face folder: config.json, safetensors, tokenizer.json.

        Args:
            path: The folder.
            config: Sizes and limits.
            dtype: Element type of the weights; none keeps the checkpoint's.
            device: Where the weights go.
            load_format: "dummy" draws random weights and needs no weight files, to measure speed
                and memory.
            tensor_parallel: Processes that share every layer; see ``EngineConfig.parallel``.

        Raises:
            CheckpointError, InputFileError, UnsupportedError: the folder cannot be used.
            ConfigError: the model does not divide among the ranks.
        """
        opened = open_folder(
            path,
            config=config,
            dtype=dtype,
            device=device,
            load_format=load_format,
            tensor_parallel=tensor_parallel,
        )
        llm = cls(opened.model, opened.tokenizer, opened.config, ranks=opened.ranks)
        llm.weights.source = opened.source
        return llm

    @property
    def model(self) -> Decoder:
        """The module itself."""
        return self.core.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            UnsupportedError: the engine was built without one.
        """
        if self.core.tokenizer is None:
            raise UnsupportedError(
                "this LLM has no tokenizer", fix="pass token ids, or build it with a tokenizer"
            )
        return self.core.tokenizer

    @property
    def weight_version(self) -> int:
        """How often the weights were said to have changed."""
        return self.core.weight_version

    @property
    def weights(self) -> EngineWeights:
        """Where the weights come from and how they are replaced."""
        return self.core.weights

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        num_samples: int = 1,
        adapter: str | Sequence[str | None] | None = None,
        on_delta: Callable[[Delta], None] | None = None,
    ) -> list[Completion]:
        """Complete prompts; sample ``j`` of prompt ``i`` is at ``i * num_samples + j``.

        Texts may contain special tokens, which become their ids. With a seed, equal prompts give
        equal samples wherever they stand in the list; to draw many prompts independently of one
        another, give each its own seed or none.

        Args:
            prompts: One prompt or several, as text or token ids.
            sampling: For all prompts, or one per prompt.
            num_samples: Samples per prompt.
            adapter: Name of a loaded adapter for all prompts, or one or none per prompt.
            on_delta: Called with each piece of news, such as for a progress bar.

        Raises:
            RequestError: a prompt that cannot be served; nothing is generated then.
            Exception: whatever the model raised; nothing is left in the engine.
        """
        token_lists = [self.encode(prompt) for prompt in list_prompts(prompts)]
        params = sampling_per_prompt(sampling, len(token_lists))
        adapters = adapter_per_prompt(adapter, len(token_lists))
        requests = [
            request
            for tokens, prompt_params, name in zip(token_lists, params, adapters, strict=True)
            for request in forked(self._request(tokens, prompt_params, 0, name), num_samples)
        ]
        completions = [stream.completion() for stream in self._run(requests, on_delta)]
        return [
            # The prompt was scored once, with its first sample.
            replace(it, prompt_logprobs=completions[i - i % num_samples].prompt_logprobs)
            for i, it in enumerate(completions)
        ]

    def chat(
        self,
        messages: str | Sequence[Message],
        sampling: SamplingParams | None = None,
        *,
        adapter: str | None = None,
    ) -> Completion:
        """Answer a conversation, or one user message given as text."""
        return self.generate([self.render(messages)], sampling, adapter=adapter)[0]

    def stream(
        self,
        prompt: Prompt,
        sampling: SamplingParams | None = None,
        *,
        adapter: str | None = None,
    ) -> Iterator[Delta]:
        """Complete one prompt piece by piece; closing the iterator aborts it."""
        self.core.gate.check_steps()
        request = self._request(self.encode(prompt), sampling or SamplingParams(), 0, adapter)
        self.core.submit(request)
        try:
            while self.core.has_work:
                yield from (delta for delta in self._step() if delta.request_id == request.id)
        finally:
            self.core.abort(request.id)
            self._settle()

    def beam_search(
        self, prompts: Prompt | Sequence[Prompt], params: BeamParams | None = None
    ) -> list[list[BeamResult]]:
        """Return the likeliest continuations of each prompt, best first (``weft.engine.beam``).

        Raises:
            ConfigError: the beam is too wide.
            ContextLengthError: prompt and hypotheses do not fit the context.
            WeftError: a hypothesis could not be computed; nothing is left in the engine.
        """
        self.core.gate.check_steps()
        token_lists = [self.encode(prompt) for prompt in list_prompts(prompts)]
        try:
            return run_searches(self.core, token_lists, params or BeamParams(), self._step)
        finally:
            self._settle()

    def contrastive_search(
        self, prompts: Prompt | Sequence[Prompt], params: ContrastiveParams | None = None
    ) -> list[ContrastiveResult]:
        """Continue prompts with likely tokens that do not repeat (``weft.engine.contrastive``).

        Raises:
            ContextLengthError: a prompt and its continuation do not fit the context.
        """
        self.core.gate.check_steps()
        token_lists = [self.encode(prompt) for prompt in list_prompts(prompts)]
        params = params or ContrastiveParams()
        return contrastive_search(self.model, token_lists, params, self.core.eos_ids)

    def score(self, sequences: Sequence[Prompt], *, temperature: float = 1.0) -> list[list[float]]:
        """Return the log-probability of every token but the first, given those before it.

        Computed by the training path (packed documents), so it is what a trainer would see.

        Raises:
            ContextLengthError: a sequence longer than the context.
        """
        token_lists = [self.encode(sequence) for sequence in sequences]
        return score_sequences(self.model, token_lists, temperature=temperature)

    def render(self, messages: str | Sequence[Message]) -> tuple[int, ...]:
        """Return the prompt tokens of a conversation that the assistant is to continue.

        Special tokens written inside a message stay text.

        Raises:
            TokenizerError: the tokenizer has no chat template.
            RequestError: the template refuses the messages.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return Renderer(self.tokenizer).render(messages, add_generation_prompt=True).tokens

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the tokens of a prompt given either way."""
        if isinstance(prompt, str):
            tokens = self.tokenizer.encode(prompt, special=True, add_special_tokens=True)
            return tuple(tokens)
        return tuple(int(token) for token in prompt)

    def load_adapter(
        self, name: str, source: AdapterSource, *, replace: bool = False
    ) -> AdapterInfo:
        """Load an adapter from a PEFT folder or from tensors (``weft.adapt.lora.adapter_of``).

        Raises:
            ConfigError, InputFileError, UnsupportedError, CheckpointError: it cannot be used.
        """
        return self.core.adapters.load(name, source, replace=replace)

    def unload_adapter(self, name: str) -> None:
        """Take an adapter's name away; requests under way finish with it."""
        self.core.adapters.unload(name)

    @property
    def adapters(self) -> Sequence[AdapterInfo]:
        """The adapters that are loaded, by name."""
        return self.core.adapters.list()

    def bump_weight_version(self) -> int:
        """Say that the weights have changed in place; return the new version."""
        return self.core.bump_weight_version()

    def pause(self, mode: PauseMode = "abort") -> None:
        """Compute no further steps; see ``weft.engine.pause`` for what becomes of requests."""
        pause(self.core, mode)

    def resume(self) -> None:
        """Compute again."""
        resume(self.core)

    def sleep(self, tags: Iterable[str] = TAGS, *, level: Level = 1) -> SleepReport:
        """Let go of the memory of weights, of the KV cache or of both (``weft.engine.sleep``)."""
        return self.core.sleeper.sleep(tags, level=level)

    def wake(self, tags: Iterable[str] = TAGS) -> SleepReport:
        """Take back memory that was let go."""
        return self.core.sleeper.wake(tags)

    def flush_prefixes(self) -> None:
        """Forget all cached prefixes."""
        self.core.flush_prefixes()

    def stats(self) -> EngineStats:
        """Return a snapshot of queues, blocks, counters and latencies."""
        return self.core.stats()

    def close(self) -> None:
        """End the processes that compute with this one, if there are any; idempotent.

        Happens by itself when the object is dropped or the program ends.
        """
        self.core.close()

    def _request(
        self, tokens: tuple[int, ...], params: SamplingParams, sample: int, adapter: str | None
    ) -> Request:
        return Request(
            id=f"llm-{next(self._request_ids)}",
            tokens=tokens,
            sampling=params,
            arrival_s=self.core.clock.now(),
            sequence=sample,
            adapter=adapter or "",
        )

    def _run(
        self, requests: Sequence[Request], on_delta: Callable[[Delta], None] | None
    ) -> list[RequestStream]:
        """Serve all requests; whatever happens, none of them stays in the engine."""
        self.core.gate.check_steps()
        for request in requests:
            self.core.check(request)
            self.core.prepare(request)  # a structure that is refused is refused before any work
        waiting = deque(requests)
        streams: list[RequestStream] = []
        try:
            while waiting or self.core.has_work:
                # The queue is bounded for servers; here the prompts themselves are the queue.
                while waiting and self.core.num_unfinished < self.core.config.max_waiting:
                    streams.append(self.core.submit(waiting.popleft()))
                for delta in self._step():
                    if on_delta is not None:
                        on_delta(delta)
        finally:
            for stream in streams:
                if stream.finish_reason is None:
                    self.core.abort(stream.request.id)
            self._settle()
        return streams

    def _step(self) -> list[Delta]:
        deltas = self.core.step()
        if self.core.loop.failure is not None:
            raise self.core.loop.failure
        return deltas

    def _settle(self) -> None:
        """Let the runner forget what has ended."""
        self.core.drain()
        while self.core.num_unfinished == 0 and self.core.has_work:
            self.core.step()
