"""How much CPU time does the scheduler take for one decode step of many sequences?

All sequences run (their prompts are in the cache), each step computes one token of each, and the
runner answers at once, so what is timed is `schedule` and `settle` alone. The yardstick is the
model's own step: 1 ms is 10 % of a 10 ms decode step. Printed per context length: median and 99th
percentile of the CPU time of this thread. All sequences are equally long, so they fill a block in
the same step: every 16th step hashes all of them at once, and the 99th percentile is that step.

Three modes: "plain" settles a step before it schedules the next; "drafts" verifies four guesses per
sequence, of which two hold, so a step gives three tokens; "depth 1" schedules a step before it
settles the one before.

    python benchmarks/scheduler.py --json scheduler.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from pathlib import Path

from record import record

from weft.sched.config import SchedulerConfig
from weft.sched.plan import Draft, Sampled, StepPlan, StepResult
from weft.sched.scheduler import Scheduler
from weft.spec import Request, SamplingParams

BLOCK_SIZE = 16
MODES = ("plain", "drafts", "depth 1")
TIMES = ("schedule_p50_ms", "settle_p50_ms", "step_p50_ms", "step_p99_ms")
NUM_GUESSES, NUM_GUESSES_THAT_HOLD = 4, 2
GUESSES = Draft(tuple(range(NUM_GUESSES)))


def main() -> None:
    options = parse_options()
    results = []
    print(f"{options.sequences} running sequences, {options.steps} steps, CPU time in ms")
    columns = ("schedule", "settle", "step p50", "step p99")
    print(f"{'context':>8} {'mode':>8} " + " ".join(f"{column:>10}" for column in columns))
    for context in options.contexts:
        for mode in MODES:
            result = measure(context, mode, options)
            results.append(result)
            times = (result[name] for name in TIMES)
            print(f"{context:8d} {mode:>8} " + " ".join(f"{time_ms:10.3f}" for time_ms in times))
    record(options, results)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--steps-per-fill", type=int, default=32)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measure(context: int, mode: str, options: argparse.Namespace) -> dict[str, float | str]:
    """Time decode steps at about this context; start anew every few so that it stays there."""
    schedule_ms: list[float] = []
    settle_ms: list[float] = []
    num_tokens = 1 if mode != "drafts" else NUM_GUESSES_THAT_HOLD + 1
    num_steps = max(options.steps_per_fill // num_tokens, 1)
    while len(schedule_ms) < options.steps:
        scheduler = fill(context - options.steps_per_fill // 2, options.sequences, context, mode)
        in_flight = deque([scheduler.schedule(0.0)] if mode == "depth 1" else [])
        for _ in range(num_steps):
            start_ns = time.thread_time_ns()
            in_flight.append(scheduler.schedule(0.0))
            planned_ns = time.thread_time_ns()
            plan = in_flight.popleft()
            result = answer(plan, mode)
            answered_ns = time.thread_time_ns()
            scheduler.settle(plan, result, 0.0)
            settle_ms.append((time.thread_time_ns() - answered_ns) / 1e6)
            schedule_ms.append((planned_ns - start_ns) / 1e6)
            assert len(plan.items) == options.sequences
    step_ms = [a + b for a, b in zip(schedule_ms, settle_ms, strict=True)]
    return {
        "context": context,
        "mode": mode,
        "num_sequences": options.sequences,
        "schedule_p50_ms": statistics.median(schedule_ms),
        "settle_p50_ms": statistics.median(settle_ms),
        "step_p50_ms": statistics.median(step_ms),
        "step_p99_ms": statistics.quantiles(step_ms, n=100)[-1],
    }


def fill(num_prompt_tokens: int, num_sequences: int, context: int, mode: str) -> Scheduler:
    """Return a scheduler whose sequences all have their prompts computed."""
    blocks_per_sequence = 2 * context // BLOCK_SIZE + 4
    scheduler = Scheduler(
        SchedulerConfig(
            num_blocks=num_sequences * blocks_per_sequence,
            max_context=4 * context + 256,
            block_size=BLOCK_SIZE,
            max_num_sequences=num_sequences,
            max_tokens_per_step=num_sequences * context,
            max_waiting=num_sequences,
            max_draft=NUM_GUESSES if mode == "drafts" else 0,
            seed=0,
        )
    )
    sampling = SamplingParams(ignore_eos=True, seed=0)
    for index in range(num_sequences):
        prompt = tuple(range(index * context, index * context + num_prompt_tokens))
        scheduler.submit(Request(str(index), prompt, sampling))
    plan = scheduler.schedule(0.0)
    assert plan.num_tokens == num_sequences * num_prompt_tokens
    scheduler.settle(plan, answer(plan, mode), 0.0)
    return scheduler


def answer(plan: StepPlan, mode: str) -> StepResult:
    """Return tokens for each item, all different, so that no blocks become equal."""
    tokens = {
        item.id: tuple(
            Sampled(item.id << 20 | item.start + index, 0.0)
            for index in range(1 if item.draft is None else NUM_GUESSES_THAT_HOLD + 1)
        )
        for item in plan.items
        if item.sample
    }
    if mode != "drafts":
        return StepResult(tokens)
    return StepResult(tokens, drafts={item.id: GUESSES for item in plan.items if item.sample})


if __name__ == "__main__":
    main()
