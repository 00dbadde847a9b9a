"""A scripted engine and a byte tokenizer: servers are tested without a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weft.engine.speculation.counters import SpeculationStats
from weft.sched.stats import SnapshotCounters, TierStats
from weft.spec.request import FinishReason, Request

SPECIAL = {256: "<|im_start|>", 257: "<|im_end|>"}
NUM_IDS = 258


class ByteTokenizer:
    """One token per byte, and two special tokens.

    Attributes:
        before: What is put before a text.
    """

    before: tuple[int, ...] = ()

    vocab_size = NUM_IDS

    def encode(
        self, text: str, *, special: bool = False, add_special_tokens: bool = False
    ) -> list[int]:
        return [*self.before, *text.encode()] if add_special_tokens else list(text.encode())

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        parts = [
            bytes([id]) if id < 256 else b"" if skip_special else SPECIAL[id].encode() for id in ids
        ]
        return b"".join(parts).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        return bytes([id]) if id < 256 else b""


@dataclass
class FakeRendered:
    tokens: tuple[int, ...]


class ByteRenderer:
    """role:content lines between special tokens; tools and variables are recorded.

    Attributes:
        opening: What the assistant's header ends with.
    """

    def __init__(self, opening: str = "") -> None:
        self.opening = opening
        self.calls: list[dict[str, Any]] = []

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        add_generation_prompt: bool,
        tools: Sequence[dict[str, Any]] | None,
        variables: Mapping[str, Any] | None,
    ) -> FakeRendered:
        self.calls.append({"messages": messages, "tools": tools, "variables": variables})
        tokens: list[int] = []
        for message in messages:
            tokens += [256, *f"{message['role']}\n{message['content']}".encode(), 257]
        if add_generation_prompt:
            tokens += [256, *b"assistant\n", *self.opening.encode()]
        return FakeRendered(tuple(tokens))


@dataclass(frozen=True)
class FakeUsage:
    num_cached_tokens: int = 0


@dataclass(frozen=True)
class FakePromptLogprob:
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...] = ()


def prompt_logprobs(request: Request) -> tuple[FakePromptLogprob | None, ...] | None:
    """Return -0.25 times the position for each token, with alternatives from "A" on."""
    num_top = request.sampling.prompt_logprobs
    if num_top is None:
        return None
    top = tuple((65 + rank, -0.125 * (1 + rank)) for rank in range(num_top))
    positions = range(1, len(request.tokens))
    return None, *(FakePromptLogprob(-0.25 * position, 9, top) for position in positions)


@dataclass(frozen=True)
class FakeDelta:
    text: str = ""
    token: int | None = None
    logprob: float = 0.0
    top_logprobs: tuple[tuple[int, float], ...] = ()
    finish_reason: FinishReason | None = None
    error: str | None = None
    usage: FakeUsage = FakeUsage()
    prompt_logprobs: tuple[FakePromptLogprob | None, ...] | None = None


@dataclass
class FakeCounters:
    num_prefix_queried_tokens: int = 100
    num_prefix_hit_tokens: int = 40
    num_preemptions: int = 3


@dataclass
class FakeScheduler:
    num_running: int = 0
    num_waiting: int = 0
    kv_usage: float = 0.25
    counters: FakeCounters = field(default_factory=FakeCounters)
    tiers: TierStats | None = None
    snapshots: SnapshotCounters | None = None


@dataclass
class FakeStats:
    scheduler: FakeScheduler = field(default_factory=FakeScheduler)
    speculation: SpeculationStats | None = None


@dataclass
class FakeEngine:
    """Answers every request with ``reply``, one byte a delta.

    Attributes:
        pace_s: Seconds before each token; None never produces one.
        refuse: Raised by submit.
        ending: The finish reason after the last byte of the reply.
        error: Text of an ERROR ending.
        num_cached_tokens: Reported with every delta.
    """

    reply: str = "hello"
    pace_s: float | None = 0.0
    refuse: Exception | None = None
    ending: FinishReason = FinishReason.STOP
    error: str | None = None
    num_cached_tokens: int = 0
    healthy: bool = True
    state: str = "running"
    requests: list[Request] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)

    async def submit(self, request: Request) -> AsyncIterator[FakeDelta]:
        if self.refuse is not None:
            raise self.refuse
        self.requests.append(request)
        self.running.add(request.id)
        return self._run(request)

    async def _run(self, request: Request) -> AsyncIterator[FakeDelta]:
        sampling = request.sampling
        reply = self.reply.encode()
        length = len(reply) if sampling.max_tokens is None else sampling.max_tokens
        decoded = ""
        for index, byte in enumerate(reply[:length]):
            await asyncio.sleep(3600 if self.pace_s is None else self.pace_s)
            if request.id in self.aborted:
                yield FakeDelta(finish_reason=FinishReason.ABORT)
                return
            known = reply[: index + 1].decode(errors="ignore")
            yield FakeDelta(
                text=known[len(decoded) :],
                token=byte,
                logprob=-0.5 - index,
                top_logprobs=tuple(
                    (65 + rank, -1.0 - rank) for rank in range(sampling.logprobs or 0)
                ),
                usage=FakeUsage(self.num_cached_tokens),
                prompt_logprobs=prompt_logprobs(request) if index == 0 else None,
            )
            decoded = known
        self.running.discard(request.id)
        cut = length < len(reply)
        ending = FinishReason.LENGTH if cut else self.ending
        yield FakeDelta(finish_reason=ending, error=self.error)

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)
        self.running.discard(request_id)

    async def stats(self) -> FakeStats:
        return FakeStats(FakeScheduler(num_running=len(self.running)))
