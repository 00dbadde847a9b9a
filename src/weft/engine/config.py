"""``EngineConfig`` and the memory arithmetic that follows from it, shown as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from weft.core.console import format_bytes, format_count
from weft.core.environment import total_memory_bytes
from weft.core.errors import ConfigError, ResourceError
from weft.models.decoder import Decoder
from weft.nn.kv_cache import bytes_per_block, bytes_per_sequence
from weft.sched.config import SchedulerConfig
from weft.sched.sizing import num_ring_blocks
from weft.spec import ModelSpec

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# Part of the memory the KV cache may take when nobody says how large it is to be.
_CPU_SHARE = 0.25
_GPU_SHARE = 0.85


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
        kv_dtype: Type of keys and values; "auto" is the model's.
        max_context: Most tokens of one sequence; none is the model's context length.
        max_num_sequences: Most sequences computed at the same time.
        max_tokens_per_step: Token budget of one step; long prompts are cut into chunks to fit.
        long_prefill_threshold: Most prompt tokens of one sequence in one step; none is the budget.
        max_waiting: Requests that may wait; one more is refused (HTTP 429).
        enable_prefix_cache: Reuse the keys and values of equal prefixes. A model with recurrent
            states never does, as a state belongs to the last position only. Without it, a model
            whose layers all have a window keeps no more than the window of a sequence.
        seed: Where the seeds of requests without one come from; none asks the system.
        deterministic: A token's numbers are the same to the bit however it was scheduled, and those
            of the training path: float32 on a CPU with the C kernels. Steps of a few tokens are
            padded for it, so a single sequence decodes slower. Recurrent states are summed in
            another order when a prompt is cut elsewhere, latent attention takes the cheaper of two
            forms for each chunk, and soft-capped, sunk or biased scores have no C kernel: there it
            holds up to rounding.
        stall_timeout_s: A step that takes longer makes the engine unhealthy.
    """

    kv_memory_bytes: int | None = None
    kv_tokens: int | None = None
    num_blocks: int | None = None
    block_size: int = 16
    kv_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_context: int | None = None
    max_num_sequences: int = 256
    max_tokens_per_step: int = 2048
    long_prefill_threshold: int | None = None
    max_waiting: int = 1024
    enable_prefix_cache: bool = True
    seed: int | None = None
    deterministic: bool = False
    stall_timeout_s: float = 120.0

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

    def cache_dtype(self, model_dtype: torch.dtype) -> torch.dtype:
        """Return the element type of keys and values."""
        return model_dtype if self.kv_dtype == "auto" else _DTYPES[self.kv_dtype]

    def context_length(self, spec: ModelSpec) -> int:
        """Return the most tokens of one sequence.

        Raises:
            ConfigError: ``max_context`` is beyond what the model is meant for.
        """
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
            enable_prefix_cache=self.caches_prefixes(spec),
            window=spec.window,
            seed=self.seed,
        )

    def caches_prefixes(self, spec: ModelSpec) -> bool:
        """Return whether keys and values of equal prefixes are reused."""
        return self.enable_prefix_cache and not spec.has_states

    def blocks_per_sequence(self, spec: ModelSpec) -> int:
        """Return the blocks of a full context, or of the windows where all layers have one."""
        num_blocks = -(-self.context_length(spec) // self.block_size)
        if spec.window is None or self.caches_prefixes(spec):
            return num_blocks
        chunk = min(
            self.max_tokens_per_step, self.long_prefill_threshold or self.max_tokens_per_step
        )
        return min(num_blocks, num_ring_blocks(spec.window, chunk, self.block_size))


@dataclass(frozen=True)
class MemoryPlan:
    """What goes where, in bytes.

    Attributes:
        weight_bytes: Parameters of the model.
        num_blocks: Blocks of the KV cache.
        block_size: Positions per block.
        block_bytes: Keys and values of one block over all layers.
        max_context: Most tokens of one sequence.
        reason: What decided the number of blocks.
        num_sequences: Most sequences computed at the same time.
        state_bytes: Recurrent states of one sequence over all layers.
    """

    weight_bytes: int
    num_blocks: int
    block_size: int
    block_bytes: int
    max_context: int
    reason: str
    num_sequences: int
    state_bytes: int = 0

    @property
    def kv_bytes(self) -> int:
        """Bytes of the whole KV cache."""
        return self.num_blocks * self.block_bytes

    @property
    def kv_tokens(self) -> int:
        """Positions the KV cache holds."""
        return self.num_blocks * self.block_size

    @property
    def num_state_slots(self) -> int:
        """Slots of recurrent states, one of them for scratch; none where there are no states."""
        return self.num_sequences + 1 if self.state_bytes else 0

    @property
    def text(self) -> str:
        """The arithmetic in a few lines."""
        per_token = self.block_bytes // self.block_size
        contexts = self.kv_tokens / self.max_context
        text = (
            f"weights   {format_bytes(self.weight_bytes)}\n"
            f"KV cache  {format_bytes(self.kv_bytes)} = {self.num_blocks} blocks x "
            f"{self.block_size} tokens x {per_token} bytes per token ({self.reason})\n"
            f"          {format_count(self.kv_tokens)} tokens, "
            f"{contexts:.1f} sequences of {self.max_context} tokens"
        )
        if not self.state_bytes:
            return text
        total = format_bytes(self.num_state_slots * self.state_bytes)
        return (
            f"{text}\nstates    {total} = ({self.num_sequences} sequences + 1) x "
            f"{self.state_bytes} bytes; no prefix cache, as a state has one position only"
        )


def plan_memory(config: EngineConfig, model: Decoder) -> MemoryPlan:
    """Return how many KV blocks the engine gets and why.

    Raises:
        ResourceError: the memory given does not hold a single block, or a single state.
    """
    spec, dtype = model.spec, config.cache_dtype(model.dtype)
    block_bytes = bytes_per_block(spec, config.block_size, dtype)
    state_bytes = bytes_per_sequence(spec, dtype)
    num_sequences = _num_sequences(config, model, state_bytes, with_kv=block_bytes > 0)
    reserved = (num_sequences + 1) * state_bytes
    num_blocks, reason = _num_blocks(config, model, block_bytes, reserved)
    if num_blocks < 1:
        raise ResourceError(
            f"the KV cache gets no block: one takes {format_bytes(block_bytes)} ({reason})",
            fix=f"set engine.kv_memory_bytes to at least {block_bytes}, or a smaller block_size",
        )
    return MemoryPlan(
        weight_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
        num_blocks=num_blocks,
        block_size=config.block_size,
        block_bytes=block_bytes,
        max_context=config.context_length(spec),
        reason=reason,
        num_sequences=num_sequences,
        state_bytes=state_bytes,
    )


def _num_sequences(config: EngineConfig, model: Decoder, state_bytes: int, *, with_kv: bool) -> int:
    """Return how many sequences can run, given the memory their states may take."""
    if state_bytes == 0:
        return config.max_num_sequences
    memory = config.kv_memory_bytes or _memory_for_cache(model.device)[0]
    # One slot is scratch.
    num_fitting = int(memory * (0.5 if with_kv else 1.0)) // state_bytes - 1
    if num_fitting < 1:
        raise ResourceError(
            f"the recurrent states of one sequence take {format_bytes(state_bytes)}, and "
            f"{format_bytes(memory)} are given for states, keys and values",
            fix=f"set engine.kv_memory_bytes to at least {4 * state_bytes}",
        )
    return min(config.max_num_sequences, num_fitting)


def _num_blocks(
    config: EngineConfig, model: Decoder, block_bytes: int, reserved_bytes: int
) -> tuple[int, str]:
    if config.num_blocks is not None:
        return config.num_blocks, "engine.num_blocks"
    if config.kv_tokens is not None:
        return -(-config.kv_tokens // config.block_size), "engine.kv_tokens"
    wanted = config.max_num_sequences * config.blocks_per_sequence(model.spec)
    if block_bytes == 0:
        return wanted, "blocks hold nothing; every sequence can reach the full context"
    if config.kv_memory_bytes is not None:
        return (config.kv_memory_bytes - reserved_bytes) // block_bytes, "engine.kv_memory_bytes"
    free, share = _memory_for_cache(model.device)
    free -= reserved_bytes
    if wanted * block_bytes <= free:
        return wanted, "every sequence can reach the full context"
    return free // block_bytes, f"{share} of {model.device.type} memory"


def _memory_for_cache(device: torch.device) -> tuple[int, str]:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * _GPU_SHARE), f"{_GPU_SHARE:.0%} of the free part"
    return int(total_memory_bytes() * _CPU_SHARE), f"{_CPU_SHARE:.0%}"
