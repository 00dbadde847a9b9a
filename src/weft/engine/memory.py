"""What goes where in an engine's memory: the arithmetic that follows from its config, as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from weft.core.console import format_bytes, format_count
from weft.core.environment import total_memory_bytes
from weft.core.errors import ResourceError
from weft.engine.config import EngineConfig
from weft.models.decoder import Decoder
from weft.nn.kv_cache import bytes_per_block, bytes_per_sequence
from weft.sched.tier_policy import TierConfig

# Part of the memory the KV cache may take when nobody says how large it is to be.
_CPU_SHARE = 0.25
_GPU_SHARE = 0.85


@dataclass(frozen=True)
class MemoryPlan:
    """What goes where, in bytes.

    Attributes:
        weight_bytes: Parameters of the model.
        num_blocks: Blocks of the KV cache.
        block_size: Positions per block.
        block_bytes: Keys and values of one block over all layers, a drafting network's included.
        max_context: Most tokens of one sequence.
        reason: What decided the number of blocks.
        num_sequences: Most sequences computed at the same time.
        state_bytes: Recurrent states of one sequence over all layers.
        scratch_bytes: Room for guesses that a drafting network follows, of all sequences.
        kv_type: What keys and values are quantized to; none where they are not.
        num_snapshots: Copies of recurrent states for the prefix cache.
        tiers: Host memory and disk below the KV cache.
    """

    weight_bytes: int
    num_blocks: int
    block_size: int
    block_bytes: int
    max_context: int
    reason: str
    num_sequences: int
    state_bytes: int = 0
    scratch_bytes: int = 0
    kv_type: str | None = None
    num_snapshots: int = 0
    tiers: TierConfig | None = None

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
        """Slots of recurrent states: of sequences, one for scratch, of snapshots."""
        return self.num_sequences + 1 + self.num_snapshots if self.state_bytes else 0

    @property
    def text(self) -> str:
        """The arithmetic in a few lines."""
        per_token = self.block_bytes // self.block_size
        contexts = self.kv_tokens / self.max_context
        stored = f", {self.kv_type} with float32 factors" if self.kv_type else ""
        text = (
            f"weights   {format_bytes(self.weight_bytes)}\n"
            f"KV cache  {format_bytes(self.kv_bytes)} = {self.num_blocks} blocks x "
            f"{self.block_size} tokens x {per_token} bytes per token{stored} ({self.reason})\n"
            f"          {format_count(self.kv_tokens)} tokens, "
            f"{contexts:.1f} sequences of {self.max_context} tokens"
        )
        return "\n".join((text, *self._draft_lines(), *self._state_lines(), *self._tier_lines()))

    def _draft_lines(self) -> Iterator[str]:
        if self.scratch_bytes:
            yield f"guesses   {format_bytes(self.scratch_bytes)} for {self.num_sequences} sequences"

    def _state_lines(self) -> Iterator[str]:
        if self.state_bytes:
            total = format_bytes(self.num_state_slots * self.state_bytes)
            copies = f"{self.num_snapshots} snapshots + " if self.num_snapshots else ""
            cache = "" if self.num_snapshots else "; no prefix cache without snapshots"
            yield (
                f"states    {total} = ({self.num_sequences} sequences + {copies}1) x "
                f"{self.state_bytes} bytes{cache}"
            )

    def _tier_lines(self) -> Iterator[str]:
        if self.tiers is not None and self.block_bytes:
            for name, size in (("host", self.tiers.host_bytes), ("disk", self.tiers.disk_bytes)):
                num_tokens = size // self.block_bytes * self.block_size
                if size:
                    yield f"{name} tier {format_bytes(size)}, {format_count(num_tokens)} tokens"


def plan_memory(
    config: EngineConfig,
    model: Decoder,
    *,
    draft_block_bytes: int = 0,
    draft_scratch_bytes: int = 0,
) -> MemoryPlan:
    """Return how many KV blocks the engine gets and why.

    Args:
        config: What is asked for.
        model: The target.
        draft_block_bytes: What a drafting network keeps of a block, beside the target.
        draft_scratch_bytes: What it keeps of the guesses of one sequence.

    Raises:
        ResourceError: the memory given does not hold a single block, or a single state.
    """
    spec, dtype = config.cache_spec(model.spec), config.cache_dtype(model.dtype)
    block_bytes = bytes_per_block(spec, config.block_size, dtype, config.cache_codes)
    block_bytes += draft_block_bytes
    state_bytes = bytes_per_sequence(spec, dtype)
    num_sequences = _num_sequences(config, model, state_bytes, with_kv=block_bytes > 0)
    num_snapshots = _num_snapshots(config, model, state_bytes, num_sequences, block_bytes > 0)
    scratch_bytes = num_sequences * draft_scratch_bytes
    reserved = (num_sequences + 1 + num_snapshots) * state_bytes + scratch_bytes
    num_blocks, reason = _num_blocks(config, model, block_bytes, reserved)
    if num_blocks < 1:
        raise ResourceError(
            f"the KV cache gets no block: one takes {format_bytes(block_bytes)} ({reason})",
            fix=f"set engine.kv_memory_bytes to at least {block_bytes + reserved}, or a smaller "
            "block_size",
        )
    return MemoryPlan(
        weight_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
        num_blocks=num_blocks,
        block_size=config.block_size,
        block_bytes=block_bytes,
        max_context=config.context_length(model.spec),
        reason=reason,
        num_sequences=num_sequences,
        state_bytes=state_bytes,
        scratch_bytes=scratch_bytes,
        kv_type=None if config.cache_codes is None else config.kv_dtype,
        num_snapshots=num_snapshots,
        tiers=config.tiers,
    )


def _num_sequences(config: EngineConfig, model: Decoder, state_bytes: int, *, with_kv: bool) -> int:
    """Return how many sequences can run, given the memory their states may take."""
    if state_bytes == 0:
        return config.max_num_sequences
    memory = config.kv_memory_bytes or _memory_for_cache(model.device)[0]
    num_fitting = _num_fitting_states(config, model, state_bytes, with_kv)
    if num_fitting < 1:
        raise ResourceError(
            f"the recurrent states of one sequence take {format_bytes(state_bytes)}, and "
            f"{format_bytes(memory)} are given for states, keys and values",
            fix=f"set engine.kv_memory_bytes to at least {4 * state_bytes}",
        )
    return min(config.max_num_sequences, num_fitting)


def _num_snapshots(
    config: EngineConfig, model: Decoder, state_bytes: int, num_sequences: int, with_kv: bool
) -> int:
    """Return how many copies of states are kept; unless told, what fits beside the sequences."""
    if not model.spec.has_states or not config.caches_prefixes(model.spec):
        return 0
    if config.snapshots.num_slots is not None:
        return config.snapshots.num_slots
    num_left = _num_fitting_states(config, model, state_bytes, with_kv) - num_sequences
    return min(num_sequences, num_left)


def _num_fitting_states(
    config: EngineConfig, model: Decoder, state_bytes: int, with_kv: bool
) -> int:
    memory = config.kv_memory_bytes or _memory_for_cache(model.device)[0]
    # One slot is scratch.
    return int(memory * (0.5 if with_kv else 1.0)) // state_bytes - 1


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
