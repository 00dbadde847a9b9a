"""How much CPU time does the scheduler take for one decode step of many sequences?

All sequences run (their prompts are in the cache), each step computes one token of each, and the
runner answers at once, so what is timed is `schedule` and `settle` alone. The yardstick is the
model's own step: 1 ms is 10 % of a 10 ms decode step. Printed per context length: median and 99th
percentile of the CPU time of this thread. All sequences are equally long, so they fill a block in
the same step: every 16th step hashes all of them at once, and the 99th percentile is that step.

    python benchmarks/scheduler.py --json scheduler.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from weft.core.environment import describe_environment
from weft.sched.config import SchedulerConfig
from weft.sched.plan import Sampled, StepPlan, StepResult
from weft.sched.scheduler import Scheduler
from weft.spec import Request, SamplingParams

BLOCK_SIZE = 16


def main() -> None:
    options = parse_options()
    results = []
    print(f"{options.sequences} running sequences, {options.steps} steps, CPU time in ms")
    print(f"{'context':>8} {'schedule':>10} {'settle':>10} {'step p50':>10} {'step p99':>10}")
    for context in options.contexts:
        result = measure(context, options)
        results.append(result)
        print(
            f"{context:8d} {result['schedule_p50_ms']:10.3f} {result['settle_p50_ms']:10.3f} "
            f"{result['step_p50_ms']:10.3f} {result['step_p99_ms']:10.3f}"
        )
    if options.json is not None:
        document = {
            "environment": describe_environment(),
            "options": {k: v for k, v in vars(options).items() if k != "json"},
            "results": results,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--steps-per-fill", type=int, default=32)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measure(context: int, options: argparse.Namespace) -> dict[str, float]:
    """Time decode steps at about this context; start anew every few so that it stays there."""
    schedule_ms: list[float] = []
    settle_ms: list[float] = []
    while len(schedule_ms) < options.steps:
        scheduler = fill(context - options.steps_per_fill // 2, options.sequences, context)
        for _ in range(options.steps_per_fill):
            start_ns = time.thread_time_ns()
            plan = scheduler.schedule(0.0)
            planned_ns = time.thread_time_ns()
            result = answer(plan)
            answered_ns = time.thread_time_ns()
            scheduler.settle(plan, result, 0.0)
            settle_ms.append((time.thread_time_ns() - answered_ns) / 1e6)
            schedule_ms.append((planned_ns - start_ns) / 1e6)
            assert plan.num_tokens == len(plan.items) == options.sequences
    step_ms = [a + b for a, b in zip(schedule_ms, settle_ms, strict=True)]
    return {
        "context": context,
        "num_sequences": options.sequences,
        "schedule_p50_ms": statistics.median(schedule_ms),
        "settle_p50_ms": statistics.median(settle_ms),
        "step_p50_ms": statistics.median(step_ms),
        "step_p99_ms": statistics.quantiles(step_ms, n=100)[-1],
    }


def fill(num_prompt_tokens: int, num_sequences: int, context: int) -> Scheduler:
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
            seed=0,
        )
    )
    sampling = SamplingParams(ignore_eos=True, seed=0)
    for index in range(num_sequences):
        prompt = tuple(range(index * context, index * context + num_prompt_tokens))
        scheduler.submit(Request(str(index), prompt, sampling))
    plan = scheduler.schedule(0.0)
    assert plan.num_tokens == num_sequences * num_prompt_tokens
    scheduler.settle(plan, answer(plan), 0.0)
    return scheduler


def answer(plan: StepPlan) -> StepResult:
    """Return a token for each item, all different, so that no blocks become equal."""
    return StepResult({i.id: (Sampled(i.id << 20 | i.start, 0.0),) for i in plan.items if i.sample})


if __name__ == "__main__":
    main()
