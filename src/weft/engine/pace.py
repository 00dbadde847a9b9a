"""How long this engine's steps take, measured: the prices by which chunks keep an output's pace.

A few steps of different sizes go through the very runner that serves, over blocks that nobody has
yet; what they leave in the cache is written over. The fit is that of the planner.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np

from weft.plan.least_squares import non_negative
from weft.sched.budget import StepTime
from weft.sched.launch import Runner
from weft.sched.loop import Clock
from weft.sched.plan import NewSequence, StepItem, StepPlan
from weft.spec.sampling import SamplingParams

_NUM_ROUNDS = 3
_LEAST_S = 1e-6


def measure_step_time(
    runner: Runner,
    clock: Clock,
    *,
    num_blocks: int,
    block_size: int,
    max_context: int,
    max_tokens: int,
    max_sequences: int,
) -> StepTime:
    """Run small and large steps and return what a step, a token and a token of context take.

    Args:
        runner: It must not have computed anything yet.
        clock: Seconds.
        num_blocks: Blocks of the cache, all of them free.
        block_size: Positions per block.
        max_context: Most tokens of one sequence.
        max_tokens: Token budget of one step.
        max_sequences: Most sequences of one step.
    """
    most = min(max_context, num_blocks * block_size) - 1
    shapes = [
        (1, 1, 0),
        (1, 1, most),
        (max(1, min(8, max_sequences, num_blocks)), 1, 0),
        (1, min(64, most, max_tokens), 0),
        (1, min(256, most, max_tokens), 0),
        (1, min(512, most, max_tokens), 0),
    ]
    seconds: dict[tuple[int, int, int], list[float]] = {shape: [] for shape in shapes}
    ids = iter(range(-2, -(2**31), -1))  # no sequence of the scheduler has such a number
    for number in range(_NUM_ROUNDS + 1):
        for shape in seconds:
            plan = _plan(*shape, ids, block_size)
            start_s = clock.now()
            runner.execute(plan)
            if number:  # the first one allocates and compiles
                seconds[shape].append(clock.now() - start_s)
            runner.forget(tuple(item.id for item in plan.items))
    return fit_step_time({shape: statistics.median(found) for shape, found in seconds.items()})


def fit_step_time(seconds: dict[tuple[int, int, int], float]) -> StepTime:
    """Fit prices to steps given as (sequences, new tokens of each, earlier tokens of each)."""
    features = np.array(
        [(1.0, count * new, count * (new + earlier)) for count, new, earlier in seconds], np.float64
    )
    measured = np.maximum(np.array(list(seconds.values())), _LEAST_S)
    base_s, token_s, context_s = non_negative(features / measured[:, None], np.ones(len(measured)))
    return StepTime(max(float(base_s), _LEAST_S), float(token_s), float(context_s))


def _plan(count: int, new: int, earlier: int, ids: Iterator[int], block_size: int) -> StepPlan:
    """Return a step of ``count`` sequences; they share blocks, as nobody reads the result."""
    blocks = tuple(range(-(-(earlier + new) // block_size)))
    sampling = SamplingParams(temperature=0.0)
    sequences, items = [], []
    for _ in range(count):
        id = next(ids)
        sequences.append(NewSequence(id, f"pace{id}", (0,), sampling, 0, 0, ()))
        items.append(StepItem(id, (0,) * new, earlier, blocks, sample=False))
    return StepPlan(-1, tuple(items), tuple(sequences))
