"""How much two texts have to do with each other, by whatever model is served.

- An encoder: the cosine of their vectors, -1 to 1.
- A decoder: the mean log-probability of the second text's tokens behind the first, at most 0. For
  reranking that is how likely a document makes the query, "query likelihood" (Ponte and Croft
  1998; with language models: Sachan et al. 2022, arXiv:2204.07496).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from starlette.concurrency import run_in_threadpool

from weft.core.errors import ContextLengthError, RequestError
from weft.serve.embeddings import unit
from weft.serve.encoder import TextEncoder
from weft.serve.generation import Generation
from weft.serve.prompts import Prompt
from weft.serve.service import Service
from weft.spec.request import FinishReason, Request
from weft.spec.sampling import SamplingParams

_SCORED = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)


@dataclass(frozen=True)
class Pairs:
    """Texts to compare: as many of one as of the other, or one with all of the other.

    Attributes:
        first: What a decoder reads.
        second: What it is to find likely.
        fields: Where a request has them.
        truncate: See ``TextEncoder.read``.
        between: What a decoder reads between the two.

    Raises:
        RequestError: the numbers do not fit.
    """

    first: Sequence[str]
    second: Sequence[str]
    fields: tuple[str, str]
    truncate: int | None = None
    between: str = ""

    def __post_init__(self) -> None:
        sizes = len(self.first), len(self.second)
        if 0 in sizes or (sizes[0] != sizes[1] and 1 not in sizes):
            (first, second) = self.fields
            raise RequestError(
                f"{first} has {sizes[0]} texts and {second} has {sizes[1]}",
                fix="send equally many, or one text with a list of others",
                param=second if sizes[0] else first,
            )

    @property
    def numbers(self) -> list[tuple[int, int]]:
        """Which text meets which."""
        size = max(len(self.first), len(self.second))
        one, other = size // len(self.first) == 1, size // len(self.second) == 1
        return [(pair if one else 0, pair if other else 0) for pair in range(size)]


class Scores(NamedTuple):
    """One score per pair, and how many tokens were read for all of them."""

    values: list[float]
    num_tokens: int


class Scorer(Protocol):
    """Scores pairs of texts."""

    async def score(self, pairs: Pairs, request_id: str, arrival_s: float) -> Scores:
        """Return the scores of all pairs.

        Raises:
            RequestError: a text is empty or too long, or there are too many.
        """
        ...


def scorer_of(service: Service) -> Scorer:
    """Return the scorer that fits the model of a server."""
    encoder = service.encoder
    return LikelihoodScorer(service) if encoder is None else CosineScorer(service, encoder)


class CosineScorer:
    """Scores with an encoder; each text is computed once."""

    def __init__(self, service: Service, encoder: TextEncoder) -> None:
        self._service = service
        self._encoder = encoder

    async def score(self, pairs: Pairs, request_id: str, arrival_s: float) -> Scores:
        """Return the cosine of each pair."""
        self._service.check_alive()
        lists = [
            await self._encoder.read(texts, truncate=pairs.truncate, param=field)
            for texts, field in zip((pairs.first, pairs.second), pairs.fields, strict=True)
        ]
        tokens = [*lists[0], *lists[1]]
        vectors_BD = unit(await self._encoder.embed(tokens))
        first_BD, second_BD = vectors_BD[: len(lists[0])], vectors_BD[len(lists[0]) :]
        num_tokens = sum(map(len, tokens))
        self._service.metrics.timer(num_tokens, arrival_s).finish(FinishReason.STOP)
        values = [float(first_BD[i] @ second_BD[j]) for i, j in pairs.numbers]
        return Scores(values, num_tokens)


class LikelihoodScorer:
    """Scores with a decoder, whose engine serves each pair as a request for its prompt."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def score(self, pairs: Pairs, request_id: str, arrival_s: float) -> Scores:
        """Return the mean log-probability of each pair's second text."""
        service = self._service
        service.check_alive()
        self._check(pairs)
        first, second = await run_in_threadpool(self._read, pairs)
        prompts = [(first[i] + second[j], len(second[j])) for i, j in pairs.numbers]
        for index, (tokens, _) in enumerate(prompts):
            self._check_fit(index, tokens, pairs)
        values: list[float] = []
        # A few at a time, so that one request with many documents does not fill the queue.
        size = service.config.max_choices
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            values += await self._score(part, f"{request_id}-{start}", arrival_s)
        return Scores(values, sum(len(tokens) for tokens, _ in prompts))

    async def _score(
        self, prompts: Sequence[tuple[Prompt, int]], request_id: str, arrival_s: float
    ) -> list[float]:
        service = self._service
        generation = Generation(service.engine, service.metrics, arrival_s, prompt_only=True)
        requests = [
            (index, Request(f"{request_id}-{index}", tokens, _SCORED))
            for index, (tokens, _) in enumerate(prompts)
        ]
        await generation.submit(requests)
        async with generation:
            await generation.finish()
        return [
            sum(entry.logprob for entry in (choice.prompt_logprobs or ())[-size:] if entry) / size
            for choice, (_, size) in zip(generation.choices, prompts, strict=True)
        ]

    def _check(self, pairs: Pairs) -> None:
        limit, size = self._service.config.max_inputs, len(pairs.numbers)
        if size > limit:
            raise RequestError(
                f"{size} pairs of texts", fix=f"send at most {limit}", param=pairs.fields[0]
            )
        if pairs.truncate is not None:
            raise RequestError(
                "truncate_prompt_tokens is for encoders, and this model is a decoder",
                fix="shorten the texts yourself",
                param="truncate_prompt_tokens",
            )

    def _check_fit(self, index: int, tokens: Prompt, pairs: Pairs) -> None:
        # The engine draws one token behind what it scores.
        longest = self._service.prompts.max_context - 1
        if len(tokens) > longest:
            first, second = pairs.fields
            raise ContextLengthError(
                f"{first} and {second} of pair {index} have {len(tokens)} tokens together, "
                f"the model reads {longest}",
                fix="shorten one of them",
                param=first,
            )

    def _read(self, pairs: Pairs) -> tuple[list[Prompt], list[Prompt]]:
        service, (first, second) = self._service, pairs.fields
        return (
            # BOS goes before the pair; the second text is a continuation.
            [
                self._checked(service.prompts.tokens(text + pairs.between), first)
                for text in pairs.first
            ],
            [self._checked(tuple(service.tokenizer.encode(it)), second) for it in pairs.second],
        )

    def _checked(self, tokens: Prompt, field: str) -> Prompt:
        self._service.prompts.check_tokens(tokens, param=field)
        return tokens
