"""The numbers the scheduler decides by, checked once."""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import ConfigError
from weft.sched.budget import StepTime
from weft.sched.sizing import num_ring_blocks
from weft.sched.snapshots import SnapshotConfig, Snapshots
from weft.sched.tier_policy import TierConfig
from weft.sched.tiers import Tiers


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Sizes and limits of one scheduler.

    Attributes:
        num_blocks: Blocks of the KV cache.
        max_context: Most tokens of one sequence, prompt and output together.
        block_size: Positions per block.
        max_num_sequences: Most sequences computed at the same time.
        max_tokens_per_step: Token budget of one step; long prompts are cut into chunks to fit.
        long_prefill_threshold: Most prompt tokens of one sequence in one step, so that one long
            prompt leaves room for others; none means the whole budget.
        max_waiting: Requests that may wait; one more is refused with QueueFullError.
        admission_reserve: Fraction of the blocks that admitting a sequence must leave free while
            others run, so that their next tokens do not preempt it at once.
        enable_prefix_cache: Reuse blocks of equal prefixes.
        window: Positions that the widest layer of the model looks back at, its own included; none
            where a layer sees everything. Without a prefix cache a sequence then holds no more
            blocks than the window and one step need.
        num_sinks: First positions of a sequence that are kept beside the window.
        enable_forks: Let forks share what their parents have computed; not where states outside
            of blocks belong to it.
        policy: Who is admitted next; see `sched.policy`.
        max_overtakes: After so many admissions of others, the request that came first goes first.
        step_time: What a step takes, for `tpot_target_s`.
        tpot_target_s: Longest step with outputs in it; chunks of prompts are cut to fit.
        max_draft: Most guesses to verify per sequence and step; zero drops all that are proposed.
        tiers: Host memory and disk for prefixes the KV cache has no room for; none has neither.
        block_bytes: Keys and values of one block over all layers; the tiers count in it.
        snapshots: Copies of recurrent states, without which a model that has them cannot share
            prefixes; none where a model has no states.
        seed: Where the seeds of requests without one come from; none asks the system.
    """

    num_blocks: int
    max_context: int
    block_size: int = 16
    max_num_sequences: int = 256
    max_tokens_per_step: int = 2048
    long_prefill_threshold: int | None = None
    max_waiting: int = 1024
    admission_reserve: float = 0.01
    enable_prefix_cache: bool = True
    window: int | None = None
    num_sinks: int = 0
    enable_forks: bool = True
    policy: str = "priority"
    max_overtakes: int = 64
    step_time: StepTime | None = None
    tpot_target_s: float | None = None
    max_draft: int = 0
    tiers: TierConfig | None = None
    block_bytes: int = 0
    snapshots: SnapshotConfig | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_blocks", "block_size", "max_num_sequences", "max_waiting"):
            self._at_least(name, 1)
        self._at_least("max_context", 2)
        self._at_least("max_draft", 0)
        self._at_least("max_overtakes", 1)
        self._at_least("num_sinks", 0)
        for name in ("long_prefill_threshold", "window"):
            if getattr(self, name) is not None:
                self._at_least(name, 1)
        if self.max_tokens_per_step < self.max_num_sequences:
            raise ConfigError(
                f"max_tokens_per_step is {self.max_tokens_per_step}, below max_num_sequences "
                f"{self.max_num_sequences}; every running sequence needs a token per step",
                fix="raise max_tokens_per_step or lower max_num_sequences",
            )
        if not 0.0 <= self.admission_reserve < 1.0:
            raise ConfigError(
                f"admission_reserve is {self.admission_reserve}",
                fix="use a fraction of the blocks: at least 0 and below 1",
            )
        if self.tpot_target_s is not None and (self.step_time is None or self.tpot_target_s <= 0.0):
            raise ConfigError(
                f"tpot_target_s is {self.tpot_target_s} and step_time is {self.step_time}",
                fix="give a target above 0 and the step_time by which to meet it",
            )
        if self.max_draft and self.ring_blocks is not None:
            raise ConfigError(
                f"max_draft is {self.max_draft}, but the blocks of a sequence are a ring that "
                "guesses would write over, also those that turn out wrong",
                fix="set max_draft to 0 or enable the prefix cache",
            )
        self._check_tiers()
        self._check_snapshots()

    def _check_tiers(self) -> None:
        if self.tiers is None:
            return
        if not self.enable_prefix_cache:
            raise ConfigError(
                "tiers keep prefixes, but the prefix cache is off",
                fix="enable the prefix cache or leave the tiers away",
            )
        if not 0 < self.block_bytes <= self.tiers.host_bytes:
            raise ConfigError(
                f"the host tier has {self.tiers.host_bytes} bytes, and a block of keys and values "
                f"takes {self.block_bytes}",
                fix="give the host tier room for at least one block; a model without keys and "
                "values has nothing to put there",
            )

    def _check_snapshots(self) -> None:
        if self.snapshots is None:
            return
        if not self.enable_prefix_cache or not self.snapshots.num_slots:
            raise ConfigError(
                f"{self.snapshots.num_slots} snapshots are for the prefix cache",
                fix="enable the prefix cache and give at least one snapshot, or leave them away",
            )
        if self.snapshots.interval_tokens % self.block_size:
            raise ConfigError(
                f"snapshots are {self.snapshots.interval_tokens} tokens apart, and a block has "
                f"{self.block_size}",
                fix="use a multiple of block_size",
            )

    def _at_least(self, name: str, low: int) -> None:
        value = getattr(self, name)
        if value < low:
            raise ConfigError(f"{name} is {value}", fix=f"{name} must be at least {low}")

    @property
    def shares_forks(self) -> bool:
        """Whether forks begin with their parents' blocks; a ring's are written over."""
        return self.enable_forks and self.ring_blocks is None and self.snapshots is None

    def make_tiers(self) -> Tiers | None:
        """Return the bookkeeping of the tiers, empty."""
        if self.tiers is None:
            return None
        return Tiers(self.tiers, self.block_bytes, self.block_size)

    def make_snapshots(self) -> Snapshots | None:
        """Return the bookkeeping of the snapshots, empty."""
        if self.snapshots is None or self.snapshots.num_slots is None:
            return None
        return Snapshots(self.snapshots.num_slots, self.snapshots.interval_tokens, self.block_size)

    @property
    def ring_blocks(self) -> int | None:
        """Most blocks of a sequence's window at any length; none where it needs all positions."""
        if self.window is None or self.enable_prefix_cache:
            return None
        budget = self.max_tokens_per_step
        chunk = min(budget, self.long_prefill_threshold or budget)
        return num_ring_blocks(self.window, chunk, self.block_size)

    @property
    def sink_blocks(self) -> int:
        """Blocks before the ring that are never written over."""
        return 0 if self.ring_blocks is None else -(-self.num_sinks // self.block_size)

    @property
    def context_limit(self) -> int:
        """Most tokens one sequence can reach: the model's context or the whole KV cache."""
        ring = self.ring_blocks
        if ring is not None and self.sink_blocks + ring <= self.num_blocks:
            return self.max_context
        return min(self.max_context, self.num_blocks * self.block_size)
