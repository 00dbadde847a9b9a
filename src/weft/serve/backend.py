"""What the server needs of an engine and a tokenizer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from weft.engine.beam import BeamParams, BeamResult
from weft.spec.request import FinishReason, Request


class Usage(Protocol):
    """Token counts of one sequence."""

    @property
    def num_cached_tokens(self) -> int: ...


class PromptLogprob(Protocol):
    """How likely the model finds one token of a prompt."""

    @property
    def logprob(self) -> float: ...
    @property
    def rank(self) -> int: ...
    @property
    def top(self) -> Sequence[tuple[int, float]]: ...


# One entry per token; none for the first, which nothing comes before.
PromptLogprobs = Sequence[PromptLogprob | None]


class Delta(Protocol):
    """What one engine step adds to one request; ``weft.engine.outputs.Delta`` is one.

    Attributes:
        text: New text that is safe to show (whole characters, no part of a stop text).
        token: The new token, if one was drawn.
        logprob: Its log-probability under the distribution it was drawn from.
        top_logprobs: The likeliest alternatives as (token, log-probability), if asked for.
        finish_reason: Set on the last delta only.
        error: What failed, when the finish reason is ERROR.
        usage: Counts so far.
        prompt_logprobs: Of the prompt's tokens, with the first token, if asked for.
    """

    @property
    def text(self) -> str: ...
    @property
    def token(self) -> int | None: ...
    @property
    def logprob(self) -> float: ...
    @property
    def top_logprobs(self) -> Sequence[tuple[int, float]]: ...
    @property
    def finish_reason(self) -> FinishReason | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def prompt_logprobs(self) -> PromptLogprobs | None: ...


class Counters(Protocol):
    """Totals since the engine started."""

    @property
    def num_prefix_queried_tokens(self) -> int: ...
    @property
    def num_prefix_hit_tokens(self) -> int: ...
    @property
    def num_preemptions(self) -> int: ...


class TierCounters(Protocol):
    """Totals of what moved between the tiers of the prefix cache."""

    @property
    def num_stored_blocks(self) -> int: ...
    @property
    def num_spilled_blocks(self) -> int: ...
    @property
    def num_fetched_blocks(self) -> int: ...
    @property
    def num_loaded_blocks(self) -> int: ...
    @property
    def num_host_hit_tokens(self) -> int: ...
    @property
    def num_disk_hit_tokens(self) -> int: ...
    @property
    def num_skipped_blocks(self) -> int: ...
    @property
    def num_lost(self) -> int: ...
    @property
    def num_disk_failures(self) -> int: ...


class TierStats(Protocol):
    """What the tiers below the device hold now."""

    @property
    def num_host_blocks(self) -> int: ...
    @property
    def num_used_host_blocks(self) -> int: ...
    @property
    def num_disk_blocks(self) -> int: ...
    @property
    def num_used_disk_blocks(self) -> int: ...
    @property
    def counters(self) -> TierCounters: ...


class SnapshotCounters(Protocol):
    """Totals of the copies of recurrent states."""

    @property
    def num_saved(self) -> int: ...
    @property
    def num_restored(self) -> int: ...
    @property
    def num_skipped(self) -> int: ...


class SchedulerStats(Protocol):
    """What the scheduler holds now."""

    @property
    def tiers(self) -> TierStats | None: ...
    @property
    def snapshots(self) -> SnapshotCounters | None: ...

    @property
    def num_running(self) -> int: ...
    @property
    def num_waiting(self) -> int: ...
    @property
    def kv_usage(self) -> float: ...
    @property
    def counters(self) -> Counters: ...


class SpeculationStats(Protocol):
    """What guessing ahead did."""

    @property
    def num_drafts(self) -> int: ...
    @property
    def num_draft_tokens(self) -> int: ...
    @property
    def num_accepted_tokens(self) -> int: ...
    @property
    def num_accepted_by_position(self) -> Sequence[int]: ...


class Stats(Protocol):
    """A snapshot of an engine."""

    @property
    def scheduler(self) -> SchedulerStats: ...
    @property
    def speculation(self) -> SpeculationStats | None: ...


class Engine(Protocol):
    """Runs requests concurrently; ``weft.engine.async_engine.AsyncEngine`` is one."""

    @property
    def healthy(self) -> bool: ...

    @property
    def state(self) -> str:
        """One word: "running", "paused" (requests wait), "asleep" or "torn" (they are refused)."""
        ...

    async def submit(self, request: Request) -> AsyncIterator[Delta]:
        """Queue a request and return its deltas.

        Raises:
            RequestError: it can never run, or too many are waiting.
            ResourceError: the engine is dead or ending.
        """
        ...

    def abort(self, request_id: str) -> None:
        """End a request; unknown and finished ids are ignored."""
        ...

    async def stats(self) -> Stats: ...

    async def beam_search(self, prompt: Sequence[int], params: BeamParams) -> list[BeamResult]:
        """Return the likeliest continuations of a prompt, best first."""
        ...


class Tokenizer(Protocol):
    """The part of ``weft.text.tokenizer.Tokenizer`` that serving uses."""

    @property
    def vocab_size(self) -> int: ...
    def encode(
        self, text: str, *, special: bool = False, add_special_tokens: bool = False
    ) -> list[int]: ...

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str: ...

    def token_bytes(self, id: int) -> bytes: ...
