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


@dataclass
class TierCounters:
    """Totals since the start; they never fall.

    Attributes:
        num_stored_blocks: Copied from the device to the host.
        num_spilled_blocks: Written to disk.
        num_fetched_blocks: Read from disk.
        num_loaded_blocks: Copied from the host to the device.
        num_host_hit_tokens: Tokens found on the host and read from there.
        num_disk_hit_tokens: The same on disk.
        num_skipped_blocks: Not stored or not fetched because every host slot was in use.
        num_lost: Times a sequence started again because its blocks could not be read.
        num_disk_failures: Times the disk tier was switched off.
    """

    num_stored_blocks: int = 0
    num_spilled_blocks: int = 0
    num_fetched_blocks: int = 0
    num_loaded_blocks: int = 0
    num_host_hit_tokens: int = 0
    num_disk_hit_tokens: int = 0
    num_skipped_blocks: int = 0
    num_lost: int = 0
    num_disk_failures: int = 0


@dataclass(frozen=True)
class TierStats:
    """One look at the host and the disk tier.

    Attributes:
        num_host_blocks: Slots of the host tier.
        num_used_host_blocks: Those that hold a block.
        num_disk_blocks: Slots of the disk tier.
        num_used_disk_blocks: Those that hold a block.
        counters: Totals, as a copy.
    """

    num_host_blocks: int
    num_used_host_blocks: int
    num_disk_blocks: int
    num_used_disk_blocks: int
    counters: TierCounters


@dataclass
class SnapshotCounters:
    """Totals since the start; they never fall.

    Attributes:
        num_saved: Copies of recurrent states that were made.
        num_restored: Copies put back.
        num_skipped: Copies not made because every slot was waiting for one.
    """

    num_saved: int = 0
    num_restored: int = 0
    num_skipped: int = 0


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
        tiers: The host and the disk tier; none where there are none.
        snapshots: Totals of the copies of recurrent states; none where there are none.
    """

    num_running: int
    num_waiting: int
    num_blocks: int
    num_used_blocks: int
    num_cached_blocks: int
    num_blank_blocks: int
    counters: Counters
    tiers: TierStats | None = None
    snapshots: SnapshotCounters | None = None

    @property
    def kv_usage(self) -> float:
        """Fraction of the blocks that sequences hold."""
        return self.num_used_blocks / self.num_blocks

    @property
    def prefix_hit_rate(self) -> float:
        """Fraction of the looked-up prompt tokens that were cached."""
        return self.counters.num_prefix_hit_tokens / max(self.counters.num_prefix_queried_tokens, 1)
