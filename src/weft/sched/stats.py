"""What the scheduler counts, for metrics and the simulator."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from weft.spec.request import FinishReason


@dataclass
class Counters:
    """Totals since the start; they never fall.

    Attributes:
        num_steps: Settled steps with at least one item.
        num_computed_tokens: Tokens computed, prompt and output, recomputation included.
        num_prompt_tokens: Prompt tokens of the requests admitted so far.
        num_generated_tokens: Tokens drawn.
        num_prefix_queried_tokens: Prompt tokens looked up in the prefix cache.
        num_prefix_hit_tokens: And found.
        num_preemptions: Times a running sequence gave its blocks back to be recomputed.
        num_refused: Requests refused because the queue was full.
        num_finished: Ended requests by reason.
    """

    num_steps: int = 0
    num_computed_tokens: int = 0
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    num_prefix_queried_tokens: int = 0
    num_prefix_hit_tokens: int = 0
    num_preemptions: int = 0
    num_refused: int = 0
    num_finished: Counter[FinishReason] = field(default_factory=Counter)


@dataclass(frozen=True)
class SchedulerStats:
    """One look at the scheduler. The three kinds of blocks add up to `num_blocks`.

    Attributes:
        num_running: Sequences with blocks.
        num_waiting: Requests in the queue, preempted ones included.
        num_blocks: Size of the KV pool.
        num_used_blocks: Held by sequences.
        num_cached_blocks: Free, but still holding a prefix.
        num_blank_blocks: Free and empty.
        counters: Totals, as a copy.
    """

    num_running: int
    num_waiting: int
    num_blocks: int
    num_used_blocks: int
    num_cached_blocks: int
    num_blank_blocks: int
    counters: Counters

    @property
    def kv_usage(self) -> float:
        """Fraction of the blocks that sequences hold."""
        return self.num_used_blocks / self.num_blocks

    @property
    def prefix_hit_rate(self) -> float:
        """Fraction of the looked-up prompt tokens that were cached."""
        return self.counters.num_prefix_hit_tokens / max(self.counters.num_prefix_queried_tokens, 1)
