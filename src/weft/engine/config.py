"""``EngineConfig`` and the memory arithmetic that follows from it, shown as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from weft.core.console import format_bytes, format_count
from weft.core.environment import total_memory_bytes
from weft.core.errors import ConfigError, ResourceError
from weft.models.decoder import Decoder
from weft.nn.kv_cache import bytes_per_block
from weft.sched.config import SchedulerConfig
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
    into a quarter of the machine's memory (85 % of what is free on a GPU).

    Attributes:
        kv_memory_bytes: Memory for keys and values.
        kv_tokens: Positions the KV cache holds.
        num_blocks: Blocks of the KV cache.
        block_size: Positions per block.
        kv_dtype: Type of keys and values; "auto" is the model's.
        max_context: Most tokens of one sequence; none is the model's context length.
        max_num_sequences: Most sequences computed at the same time.
        max_tokens_per_step: Token budget of one step; long prompts are cut into chunks to fit.
        long_prefill_threshold: Most prompt tokens of one sequence in one step; none is the budget.
        max_waiting: Requests that may wait; one more is refused (HTTP 429).
        enable_prefix_cache: Reuse the keys and values of equal prefixes.
        seed: Where the seeds of requests without one come from; none asks the system.
        deterministic: A token's numbers are the same to the bit however it was scheduled, and those
            of the training path: float32 on a CPU with the C kernels. Steps of a few tokens are
            padded for it, so a single sequence decodes slower.
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

    def scheduler(self, spec: ModelSpec, num_blocks: int) -> SchedulerConfig:
        """Return the scheduler's part."""
        return SchedulerConfig(
            num_blocks=num_blocks,
            max_context=self.context_length(spec),
            block_size=self.block_size,
            max_num_sequences=self.max_num_sequences,
            max_tokens_per_step=self.max_tokens_per_step,
            long_prefill_threshold=self.long_prefill_threshold,
            max_waiting=self.max_waiting,
            enable_prefix_cache=self.enable_prefix_cache,
            seed=self.seed,
        )


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
    """

    weight_bytes: int
    num_blocks: int
    block_size: int
    block_bytes: int
    max_context: int
    reason: str

    @property
    def kv_bytes(self) -> int:
        """Bytes of the whole KV cache."""
        return self.num_blocks * self.block_bytes

    @property
    def kv_tokens(self) -> int:
        """Positions the KV cache holds."""
        return self.num_blocks * self.block_size

    @property
    def text(self) -> str:
        """The arithmetic in three lines."""
        per_token = self.block_bytes // self.block_size
        contexts = self.kv_tokens / self.max_context
        return (
            f"weights   {format_bytes(self.weight_bytes)}\n"
            f"KV cache  {format_bytes(self.kv_bytes)} = {self.num_blocks} blocks x "
            f"{self.block_size} tokens x {per_token} bytes per token ({self.reason})\n"
            f"          {format_count(self.kv_tokens)} tokens, "
            f"{contexts:.1f} sequences of {self.max_context} tokens"
        )


def plan_memory(config: EngineConfig, model: Decoder) -> MemoryPlan:
    """Return how many KV blocks the engine gets and why.

    Raises:
        ResourceError: the memory given does not hold a single block.
    """
    spec = model.spec
    block_bytes = bytes_per_block(spec, config.block_size, config.cache_dtype(model.dtype))
    num_blocks, reason = _num_blocks(config, model, block_bytes)
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
    )


def _num_blocks(config: EngineConfig, model: Decoder, block_bytes: int) -> tuple[int, str]:
    if config.num_blocks is not None:
        return config.num_blocks, "engine.num_blocks"
    if config.kv_tokens is not None:
        return -(-config.kv_tokens // config.block_size), "engine.kv_tokens"
    if config.kv_memory_bytes is not None:
        return config.kv_memory_bytes // block_bytes, "engine.kv_memory_bytes"
    context = config.context_length(model.spec)
    wanted = config.max_num_sequences * -(-context // config.block_size)
    free, share = _memory_for_cache(model.device)
    if wanted * block_bytes <= free:
        return wanted, "every sequence can reach the full context"
    return free // block_bytes, f"{share} of {model.device.type} memory"


def _memory_for_cache(device: torch.device) -> tuple[int, str]:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * _GPU_SHARE), f"{_GPU_SHARE:.0%} of the free part"
    return int(total_memory_bytes() * _CPU_SHARE), f"{_CPU_SHARE:.0%}"
