"""The parts of an engine, built from its config in the order in which they need each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from weft.engine.adapters.step import StepAdapters
from weft.engine.config import EngineConfig
from weft.engine.draw import draw_same
from weft.engine.graphs import CudaCapture, can_record
from weft.engine.memory import MemoryPlan, plan_memory
from weft.engine.pace import measure_step_time
from weft.engine.parallel.lead import LeadRunner
from weft.engine.parallel.ranks import Ranks
from weft.engine.runner import ModelRunner
from weft.engine.speculation.build import (
    BlockSpace,
    build_speculator,
    draft_block_bytes,
    draft_scratch_bytes,
    load_drafter,
)
from weft.engine.speculation.speculator import Speculator
from weft.engine.tiers import TierSpace, block_bytes
from weft.models.decoder import Decoder
from weft.nn.kv_cache import KVCache
from weft.sched.budget import StepTime
from weft.sched.config import SchedulerConfig
from weft.sched.launch import LaunchedInThread, Runner
from weft.sched.loop import Clock, ServingLoop
from weft.sched.scheduler import Scheduler


@dataclass(frozen=True)
class Parts:
    """What an engine is made of.

    Attributes:
        memory: What goes where.
        scheduler: Decides.
        runner: Computes this process's part.
        loop: Drives both, with the other ranks and a thread of its own where there are any.
        thread: Where steps are computed while the next one is planned; none without overlap.
        adapters: What sequences with an adapter compute with; none without room for any.
        speculator: Guesses; none without speculation.
    """

    memory: MemoryPlan
    scheduler: Scheduler
    runner: ModelRunner
    loop: ServingLoop
    thread: LaunchedInThread | None
    adapters: StepAdapters | None
    speculator: Speculator | None


def build_parts(
    config: EngineConfig,
    model: Decoder,
    clock: Clock,
    *,
    eos_ids: Sequence[int],
    ranks: Ranks | None = None,
    drafter: nn.Module | None = None,
) -> Parts:
    """Return the parts of one engine; see ``EngineCore`` for the arguments."""
    speculation = config.speculation
    drafter = drafter or load_drafter(speculation, model)
    drafted = draft_block_bytes(speculation, model, drafter, config.block_size)
    scratch = draft_scratch_bytes(speculation, model, drafter, config.block_size)
    memory = plan_memory(config, model, draft_block_bytes=drafted, draft_scratch_bytes=scratch)
    recorded = _records_graphs(config, model)
    cache = _cache(config, model, memory, num_spare_blocks=1 if recorded else 0)
    adapters = None
    if config.adapters is not None:
        adapters = StepAdapters(model, config.adapters, deterministic=config.deterministic)
    speculator = None
    if speculation is not None:
        space = BlockSpace(cache.num_blocks, memory.block_size, memory.num_sequences)
        speculator = build_speculator(speculation, model, space, clock, drafter=drafter)
    drafts = () if speculator is None else speculator.caches
    # Whatever a drafting network keeps of a block moves between tiers with it.
    scheduler_config = replace(
        config.scheduler(model.spec, memory), block_bytes=block_bytes((cache, *drafts))
    )
    tiers = config.tiers
    runner = ModelRunner(
        model,
        cache,
        deterministic=config.deterministic,
        proposer=speculator,
        draw=draw_same if speculator is None else speculator.draw,
        num_snapshots=memory.num_snapshots,
        space=None if tiers is None else TierSpace.of(tiers, scheduler_config.block_bytes),
        adapters=adapters,
    )
    if recorded:
        runner.forward.record_graphs(
            CudaCapture(), max_context=memory.max_context, max_rows=memory.num_sequences
        )
    everyone = runner if ranks is None else LeadRunner(runner, ranks)
    if config.tpot_target_s is not None:
        scheduler_config = replace(
            scheduler_config,
            tpot_target_s=config.tpot_target_s,
            step_time=config.step_time or _step_time(everyone, clock, scheduler_config),
        )
    scheduler = Scheduler(scheduler_config, eos_ids=eos_ids)
    thread = LaunchedInThread(everyone) if config.overlap_depth else None
    loop = ServingLoop(scheduler, thread or everyone, clock, depth=config.overlap_depth)
    return Parts(memory, scheduler, runner, loop, thread, adapters, speculator)


def _records_graphs(config: EngineConfig, model: Decoder) -> bool:
    wanted = config.cuda_graphs and model.device.type == "cuda"
    return wanted and config.long_context is None and can_record(model.spec)


def _cache(
    config: EngineConfig, model: Decoder, memory: MemoryPlan, *, num_spare_blocks: int
) -> KVCache:
    return KVCache(
        model.spec,
        num_blocks=memory.num_blocks + num_spare_blocks,
        block_size=memory.block_size,
        num_sequences=memory.num_state_slots,
        dtype=config.cache_dtype(model.dtype),
        codes=config.cache_codes,
        policy=config.long_context,
        device=model.device,
    )


def _step_time(runner: Runner, clock: Clock, config: SchedulerConfig) -> StepTime:
    return measure_step_time(
        runner,
        clock,
        num_blocks=config.num_blocks,
        block_size=config.block_size,
        max_context=config.context_limit,
        max_tokens=config.max_tokens_per_step,
        max_sequences=config.max_num_sequences,
    )
