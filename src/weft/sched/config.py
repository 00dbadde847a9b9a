"""The numbers the scheduler decides by, checked once."""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import ConfigError
from weft.sched.sizing import num_ring_blocks


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
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_blocks", "block_size", "max_num_sequences", "max_waiting"):
            self._at_least(name, 1)
        self._at_least("max_context", 2)
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

    def _at_least(self, name: str, low: int) -> None:
        value = getattr(self, name)
        if value < low:
            raise ConfigError(f"{name} is {value}", fix=f"{name} must be at least {low}")

    @property
    def ring_blocks(self) -> int | None:
        """Most blocks a sequence needs at any length; none where it needs all of its positions."""
        if self.window is None or self.enable_prefix_cache:
            return None
        budget = self.max_tokens_per_step
        chunk = min(budget, self.long_prefill_threshold or budget)
        return num_ring_blocks(self.window, chunk, self.block_size)

    @property
    def context_limit(self) -> int:
        """Most tokens one sequence can reach: the model's context or the whole KV cache."""
        if self.ring_blocks is not None and self.ring_blocks <= self.num_blocks:
            return self.max_context
        return min(self.max_context, self.num_blocks * self.block_size)
