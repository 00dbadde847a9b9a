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
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import cast

import torch

from weft.checkpoint.hf import load_model
from weft.core.errors import ConfigError, UnsupportedError
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.outputs import Completion, Delta
from weft.engine.score import score_sequences
from weft.engine.stats import EngineStats
from weft.engine.stream import RequestStream
from weft.models.decoder import Decoder
from weft.sched.loop import Clock
from weft.spec.request import Request
from weft.spec.sampling import SamplingParams
from weft.text.chat import Message
from weft.text.render import Renderer
from weft.text.tokenizer import Tokenizer

Prompt = str | Sequence[int]


class LLM:
    """Generates, chats and scores with one model. Not thread-safe.

    Args:
        model: A live module; it is used in place.
        tokenizer: None gives an engine of tokens only.
        config: Sizes and limits.
        clock: Where times come from; tests pass their own.

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
    ) -> None:
        self.core = EngineCore(model, tokenizer, config, clock=clock)
        self._request_ids = itertools.count()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        config: EngineConfig | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> LLM:
        """Load a Hugging Face folder: config.json, safetensors, tokenizer.json.

        ``dtype`` none keeps the type of the checkpoint.
        """
        path = Path(path)
        tokenizer = Tokenizer.load(path)
        return cls(load_model(path, dtype=dtype, device=device), tokenizer, config)

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

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        num_samples: int = 1,
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
            on_delta: Called with each piece of news, such as for a progress bar.

        Raises:
            RequestError: a prompt that cannot be served; nothing is generated then.
            Exception: whatever the model raised; nothing is left in the engine.
        """
        token_lists = [self.encode(prompt) for prompt in _as_list(prompts)]
        params = _per_prompt(sampling, len(token_lists))
        num_prompts = len(token_lists)
        # First samples of all prompts go first: later ones then find their prompts in the cache.
        requests = [
            self._request(tokens, prompt_params, sample)
            for sample in range(num_samples)
            for tokens, prompt_params in zip(token_lists, params, strict=True)
        ]
        streams = self._run(requests, on_delta)
        return [
            streams[sample * num_prompts + prompt].completion()
            for prompt in range(num_prompts)
            for sample in range(num_samples)
        ]

    def chat(
        self, messages: str | Sequence[Message], sampling: SamplingParams | None = None
    ) -> Completion:
        """Answer a conversation, or one user message given as text."""
        return self.generate([self.render(messages)], sampling)[0]

    def stream(self, prompt: Prompt, sampling: SamplingParams | None = None) -> Iterator[Delta]:
        """Complete one prompt piece by piece; closing the iterator aborts it."""
        request = self._request(self.encode(prompt), sampling or SamplingParams(), 0)
        self.core.submit(request)
        try:
            while self.core.has_work:
                yield from (delta for delta in self._step() if delta.request_id == request.id)
        finally:
            self.core.abort(request.id)
            self._settle()

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

    def bump_weight_version(self) -> int:
        """Say that the weights have changed in place; return the new version."""
        return self.core.bump_weight_version()

    def stats(self) -> EngineStats:
        """Return a snapshot of queues, blocks, counters and latencies."""
        return self.core.stats()

    def _request(self, tokens: tuple[int, ...], params: SamplingParams, sample: int) -> Request:
        return Request(
            id=f"llm-{next(self._request_ids)}",
            tokens=tokens,
            sampling=params,
            arrival_s=self.core.clock.now(),
            sequence=sample,
        )

    def _run(
        self, requests: Sequence[Request], on_delta: Callable[[Delta], None] | None
    ) -> list[RequestStream]:
        """Serve all requests; whatever happens, none of them stays in the engine."""
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
        if self.core.num_unfinished == 0 and self.core.has_work:
            self.core.step()


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """Tell one prompt from several: a text or a run of numbers is one."""
    if isinstance(prompts, str):
        return [prompts]
    if len(prompts) > 0 and all(isinstance(item, Integral) for item in prompts):
        return [cast(Sequence[int], prompts)]
    return list(cast(Sequence[Prompt], prompts))


def _per_prompt(
    sampling: SamplingParams | Sequence[SamplingParams] | None, num_prompts: int
) -> list[SamplingParams]:
    if sampling is None or isinstance(sampling, SamplingParams):
        return [sampling or SamplingParams()] * num_prompts
    if len(sampling) != num_prompts:
        raise ConfigError(
            f"{len(sampling)} sampling parameters for {num_prompts} prompts",
            fix="give one for all prompts or one for each",
        )
    return list(sampling)
