"""How long does the runner wait between two steps, with and without overlapped scheduling?

An engine decodes many sequences with a small random model. The gap is the time from the end of one
step's computation to the beginning of the next one's: scheduling, settling and making text with
depth 0, what is left of it with depth 1. Both depths run by turns; medians are printed.

    python benchmarks/overlap.py --json overlap.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from record import record

from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.models.decoder import Decoder
from weft.sched.plan import StepPlan, StepResult
from weft.spec import ModelShape, SamplingParams
from weft.spec.request import Request

PROMPT_TOKENS = 16


def main() -> None:
    options = parse_options()
    shape = ModelShape(dim=options.dim, num_layers=options.layers, num_heads=4, num_kv_heads=2)
    model = Decoder(shape.build(options.vocabulary)).eval()
    results = []
    heads = ("sequences", "depth", "gap us", "gap p99", "step us", "tokens/s")
    print("{:>9} {:>6} {:>8} {:>8} {:>8} {:>9}".format(*heads))
    for num_sequences in options.sequences:
        runs: dict[int, list[dict[str, float]]] = {0: [], 1: []}
        for _ in range(options.repetitions):
            for depth, of_depth in runs.items():
                of_depth.append(measure(model, num_sequences, depth, options.tokens))
        for depth, of_depth in runs.items():
            result = {key: statistics.median(run[key] for run in of_depth) for key in of_depth[0]}
            results.append({"num_sequences": num_sequences, "depth": depth, **result})
            print(
                f"{num_sequences:9d} {depth:6d} {result['gap_p50_us']:8.0f} "
                f"{result['gap_p99_us']:8.0f} {result['step_p50_us']:8.0f} "
                f"{result['tokens_per_s']:9.0f}"
            )
    record(options, results)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measure(model: Decoder, num_sequences: int, depth: int, num_tokens: int) -> dict[str, float]:
    """Decode ``num_tokens`` of each sequence; return the gaps between decode steps."""
    config = EngineConfig(
        max_num_sequences=num_sequences,
        max_tokens_per_step=max(2048, num_sequences * PROMPT_TOKENS),
        kv_tokens=num_sequences * (PROMPT_TOKENS + num_tokens + 16),
        overlap_depth=1 if depth else 0,
        enable_prefix_cache=False,
    )
    core = EngineCore(model, None, config)
    spans: list[tuple[float, float]] = []
    execute = core.runner.execute

    def timed(plan: StepPlan) -> StepResult:
        start_s = time.perf_counter()
        result = execute(plan)
        spans.append((start_s, time.perf_counter()))
        return result

    core.runner.execute = timed
    sampling = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, 4096, (num_sequences, PROMPT_TOKENS), generator=generator)
    for index, tokens in enumerate(prompts.tolist()):
        core.submit(Request(str(index), tuple(tokens), sampling))
    while core.has_work:
        core.step()
    core.close()
    return summary(spans[2:], num_sequences)


def summary(spans: list[tuple[float, float]], num_sequences: int) -> dict[str, float]:
    """Return figures of decode steps, given when each began and ended."""
    ends, starts = (end for _, end in spans[:-1]), (start for start, _ in spans[1:])
    gaps = sorted(1e6 * (start - end) for end, start in zip(ends, starts, strict=True))
    total_s = spans[-1][1] - spans[0][0]
    return {
        "gap_p50_us": statistics.median(gaps),
        "gap_p99_us": gaps[int(0.99 * len(gaps))],
        "step_p50_us": 1e6 * statistics.median(end - start for start, end in spans),
        "tokens_per_s": num_sequences * len(spans) / total_s,
    }


if __name__ == "__main__":
    main()
