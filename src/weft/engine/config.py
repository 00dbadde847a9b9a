"""``EngineConfig``: sizes and limits of one engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from weft.core.errors import ConfigError
from weft.engine.adapters.config import AdapterConfig
from weft.engine.parallel.config import ParallelConfig
from weft.engine.speculation.config import SpeculationConfig
from weft.nn.long_context.policy import LongContext, SinkWindow, cache_spec, check_policy
from weft.sched.budget import StepTime
from weft.sched.config import SchedulerConfig
from weft.sched.policy import PolicyName
from weft.sched.sizing import num_ring_blocks
from weft.sched.snapshots import SnapshotConfig
from weft.sched.tier_policy import TierConfig
from weft.spec import ModelSpec

if TYPE_CHECKING:
    from weft.engine.memory import MemoryPlan

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_CODES = {
    "int8": torch.int8,
    "float8_e4m3": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}


@dataclass(frozen=True)
class EngineConfig:
    """Sizes and limits of one engine.

    The KV cache is sized by at most one of ``kv_memory_bytes``, ``kv_tokens`` and ``num_blocks``;
    with none of them it holds ``max_num_sequences`` full contexts, or as much of that as fits
    into a quarter of the machine's memory (85 % of what is free on a GPU). A model with recurrent
    states needs one per sequence that runs; where they would fill more than half of that memory
    (all of it, if there are no keys and values), fewer sequences run at once.

    Attributes:
        kv_memory_bytes: Memory for keys, values and recurrent states.
        kv_tokens: Positions the KV cache holds.
        num_blocks: Blocks of the KV cache.
        block_size: Positions per block.
        kv_dtype: Type of keys and values; "auto" is the model's. "int8", "float8_e4m3" and
            "float8_e5m2" keep codes with a float32 factor per token and head (per token for
            latents, whose rotated part and recurrent states keep the model's type).
        max_context: Most tokens of one sequence; none is the model's context length.
        max_num_sequences: Most sequences computed at the same time.
        max_tokens_per_step: Token budget of one step; long prompts are cut into chunks to fit.
        long_prefill_threshold: Most prompt tokens of one sequence in one step; none is the budget.
        max_waiting: Requests that may wait; one more is refused (HTTP 429).
        policy: Who is admitted next: "priority" (then by arrival), "fcfs", "longest_prefix",
            "shortest_remaining" or "fair_share" (among tenants).
        tpot_target_s: Seconds from one output token to the next that chunks of prompts must not
            spoil; they are cut to fit. None uses the whole budget.
        step_time: What a step takes, for ``tpot_target_s``; none measures a few when the engine is
            built.
        enable_prefix_cache: Reuse the keys and values of equal prefixes. A model with recurrent
            states does so up to the last snapshot of them. Without it, a model whose layers all
            have a window keeps no more than the window of a sequence.
        tiers: Host memory and disk for prefixes the KV cache has no room for; none has neither.
        snapshots: Copies of recurrent states, which the prefix cache of models with states needs.
        seed: Where the seeds of requests without one come from; none asks the system.
        deterministic: A token's numbers are the same to the bit however it was scheduled: beside
            others, in chunks, behind a cached prefix, after a preemption, as a guess; with plain
            attention also those of the training path. float32 on a CPU with the C kernels. Steps of
            a few tokens are padded for it, so a single sequence decodes slower. Where attention has
            no C kernel (latents; soft-capped, sunk or biased scores) it goes token by token, and
            models with recurrent layers take a forward pass per token.
        long_context: Keep only part of long sequences: ``SinkWindow`` (first tokens and a window)
            or ``HeavyHitter`` (what each head attends to most). Needs ``enable_prefix_cache`` off.
        overlap_depth: Steps that are computed while the next one is scheduled: 0 or 1. The tokens
            are the same.
        cuda_graphs: Record decode steps at a ladder of batch sizes and replay them; ignored where
            there is no GPU.
        stall_timeout_s: A step that takes longer makes the engine unhealthy.
        parallel: Processes that compute every step together.
        adapters: Room for low-rank adapters that requests can name; none takes no adapters.
        speculation: Guess several tokens and verify them in one step; none draws one at a time.
    """

    kv_memory_bytes: int | None = None
    kv_tokens: int | None = None
    num_blocks: int | None = None
    block_size: int = 16
    kv_dtype: Literal[
        "auto", "float32", "bfloat16", "float16", "int8", "float8_e4m3", "float8_e5m2"
    ] = "auto"
    max_context: int | None = None
    max_num_sequences: int = 256
    max_tokens_per_step: int = 2048
    long_prefill_threshold: int | None = None
    max_waiting: int = 1024
    policy: PolicyName = "priority"
    tpot_target_s: float | None = None
    step_time: StepTime | None = None
    enable_prefix_cache: bool = True
    tiers: TierConfig | None = None
    snapshots: SnapshotConfig = field(default_factory=SnapshotConfig)
    seed: int | None = None
    deterministic: bool = False
    long_context: LongContext | None = None
    overlap_depth: Literal[0, 1] = 0
    cuda_graphs: bool = False
    stall_timeout_s: float = 120.0
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    adapters: AdapterConfig | None = None
    speculation: SpeculationConfig | None = None

    def __post_init__(self) -> None:
        sizes = {
            name: value
            for name in ("kv_memory_bytes", "kv_tokens", "num_blocks")
            if (value := getattr(self, name)) is not None
        }
        if len(sizes) > 1:
            given = ", ".join(f"{name}={value}" for name, value in sizes.items())
            raise ConfigError(f"the KV cache is sized twice: {given}", fix="keep one of them")
        for name, value in {**sizes, "block_size": self.block_size}.items():
            if value < 1:
                raise ConfigError(f"{name} is {value}", fix=f"{name} must be at least 1")
        if self.kv_dtype not in ("auto", *_DTYPES, *_CODES):
            raise ConfigError(
                f"kv_dtype is {self.kv_dtype!r}",
                fix=f"choose one of auto, {', '.join((*_DTYPES, *_CODES))}",
            )
        if self.tpot_target_s is not None and self.tpot_target_s <= 0.0:
            raise ConfigError(f"tpot_target_s is {self.tpot_target_s}", fix="use a time above 0")
        if self.overlap_depth not in (0, 1):
            raise ConfigError(f"overlap_depth is {self.overlap_depth}", fix="set it to 0 or 1")

    def cache_dtype(self, model_dtype: torch.dtype) -> torch.dtype:
        """Return the element type of what the cache does not quantize."""
        return _DTYPES.get(self.kv_dtype, model_dtype)

    @property
    def cache_codes(self) -> torch.dtype | None:
        """Type that keys and values are quantized to, none where they are not."""
        return _CODES.get(self.kv_dtype)

    def context_length(self, spec: ModelSpec) -> int:
        """Return the most tokens of one sequence.

        Raises:
            ConfigError: ``max_context`` is beyond what the model is meant for.
            UnsupportedError: ``long_context`` does not fit the model.
        """
        if self.long_context is not None:
            max_context = self.max_context or spec.context_length
            check_policy(self.long_context, spec, max_context)
            return max_context
        if self.max_context is None:
            return spec.context_length
        if self.max_context > spec.context_length:
            raise ConfigError(
                f"max_context is {self.max_context}, the model's context is {spec.context_length}",
                fix=f"set engine.max_context to at most {spec.context_length}",
            )
        return self.max_context

    def scheduler(self, spec: ModelSpec, memory: MemoryPlan) -> SchedulerConfig:
        """Return the scheduler's part."""
        return SchedulerConfig(
            num_blocks=memory.num_blocks,
            max_context=self.context_length(spec),
            block_size=self.block_size,
            max_num_sequences=memory.num_sequences,
            max_tokens_per_step=self.max_tokens_per_step,
            long_prefill_threshold=self.long_prefill_threshold,
            max_waiting=self.max_waiting,
            policy=self.policy,
            enable_prefix_cache=(
                self.caches_prefixes(spec) and bool(memory.num_snapshots or not spec.has_states)
            ),
            tiers=self.tiers,
            block_bytes=memory.block_bytes,
            snapshots=self.scheduled_snapshots(memory.num_snapshots),
            window=self.cache_spec(spec).window,
            enable_forks=not self.cache_spec(spec).has_states,
            num_sinks=self.num_sinks,
            max_draft=0 if self.speculation is None else self.speculation.max_draft,
            seed=self.seed,
        )

    def cache_spec(self, spec: ModelSpec) -> ModelSpec:
        """Return the model as its cache sees it: windows and states are those that are kept."""
        return cache_spec(self.long_context, spec)

    @property
    def num_sinks(self) -> int:
        """First tokens that are kept beside a window."""
        policy = self.long_context
        return policy.num_sinks if isinstance(policy, SinkWindow) else 0

    def caches_prefixes(self, spec: ModelSpec) -> bool:
        """Return whether keys and values of equal prefixes are reused."""
        return self.enable_prefix_cache and not (spec.has_states and self.snapshots.num_slots == 0)

    def scheduled_snapshots(self, num_slots: int) -> SnapshotConfig | None:
        """Return the snapshots with so many slots, whole blocks apart; none without slots."""
        if num_slots == 0:
            return None
        num_blocks = -(-self.snapshots.interval_tokens // self.block_size)
        return SnapshotConfig(interval_tokens=num_blocks * self.block_size, num_slots=num_slots)

    def blocks_per_sequence(self, spec: ModelSpec) -> int:
        """Return the blocks of a full context, or of the windows where all layers have one."""
        num_blocks = -(-self.context_length(spec) // self.block_size)
        window = self.cache_spec(spec).window
        if window is None or self.caches_prefixes(spec):
            return num_blocks
        chunk = min(
            self.max_tokens_per_step, self.long_prefill_threshold or self.max_tokens_per_step
        )
        num_sink_blocks = -(-self.num_sinks // self.block_size)
        num_kept = num_sink_blocks + num_ring_blocks(window, chunk, self.block_size)
        return min(num_blocks, num_kept)
