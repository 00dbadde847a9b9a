"""How many requests per second does a server bear? Ask its own scheduler, on a virtual clock.

python examples/simulate_serving.py --rates 2 4 8 16
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence

from weft.plan.simulate import Arrival, LinearStepTime, simulate
from weft.sched.config import SchedulerConfig

SYSTEM_PROMPT_TOKENS = 512


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--requests", type=int, default=400)
    options = parser.parse_args(arguments)

    # Made up here; fit these three to steps you have measured on your own machine.
    step_time = LinearStepTime(base_s=8e-3, per_token_s=3e-5, per_context_token_s=5e-8)
    print("requests/s  prefix cache  tokens/s  TTFT p50  TTFT p99  TPOT p50  hit rate")
    for rate in options.rates:
        for enable_prefix_cache in (False, True):
            config = SchedulerConfig(
                num_blocks=8192, max_context=8192, enable_prefix_cache=enable_prefix_cache
            )
            result = simulate(
                poisson(rate, options.requests), scheduler=config, step_time=step_time
            )
            print(
                f"{rate:10g}  {'on' if enable_prefix_cache else 'off':>12}"
                f"  {result.tokens_per_s:8.0f}"
                f"  {result.percentile('ttft_s', 50) * 1e3:5.0f} ms"
                f"  {result.percentile('ttft_s', 99) * 1e3:5.0f} ms"
                f"  {result.percentile('tpot_s', 50) * 1e3:5.1f} ms"
                f"  {result.stats.prefix_hit_rate:8.0%}"
            )


def poisson(rate: float, num_requests: int) -> Iterator[Arrival]:
    """Yield chats that share a system prompt, with exponential gaps and mixed lengths."""
    rng, time_s = random.Random(0), 0.0
    for _ in range(num_requests):
        time_s += rng.expovariate(rate)
        question, answer = rng.randint(20, 2000), rng.randint(20, 400)
        yield Arrival(time_s, SYSTEM_PROMPT_TOKENS + question, answer, SYSTEM_PROMPT_TOKENS)


if __name__ == "__main__":
    main()
