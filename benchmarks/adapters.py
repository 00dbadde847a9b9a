"""What do adapters cost? Tokens per second with 0, 1 and 8 of them in one batch, relative to none.

"none" is an engine without adapters; "0" one that has them loaded while no request names one. All
engines share one model and run by turns in this process. On a busy machine wall time says
little: rates per second of processor time are given too (comparable for one thread count only). The
median over rounds of each round's ratio is reported. Pairs of PEFT's kind on all seven projections,
float32, greedy, no end token.

    python benchmarks/adapters.py --json adapters.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from record import record

from weft.adapt.adapter import Adapter, Block
from weft.engine.adapters.config import AdapterConfig
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.models.decoder import Decoder
from weft.spec import ModelShape, ModelSpec, SamplingParams

VOCAB_SIZE = 4096
# Tokens per second of wall time, of processor time.
Rates = tuple[float, float]


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    shape = ModelShape(dim=options.dim, num_layers=options.layers, num_heads=8, num_kv_heads=8)
    spec = shape.build(VOCAB_SIZE)
    model = Decoder(spec, seed=0).eval()
    plain = LLM(model, None, config(options, None))
    adapted = LLM(model, None, config(options, AdapterConfig(max(options.adapters), options.rank)))
    for number in range(max(options.adapters)):
        adapted.load_adapter(f"adapter-{number}", random_adapter(spec, options.rank, seed=number))
    results = []
    print(f"{'batch':>6} {'adapters':>9} {'tokens/s':>10} {'of none':>8} {'per CPU second':>15}")
    for batch_size in options.batch_sizes:
        rates = measure(plain, adapted, batch_size, options)
        for label, values in rates.items():
            wall, cpu = (relative(values, rates["none"], clock) for clock in (0, 1))
            rate = statistics.median(value[0] for value in values)
            print(f"{batch_size:6d} {label:>9} {rate:10.0f} {wall:8.3f} {cpu:15.3f}")
            row = {"batch_size": batch_size, "adapters": label, "tokens_per_s": rate}
            ratios = {"relative_to_none": wall, "relative_per_cpu_second": cpu}
            results.append({**row, **ratios, "rounds": values})
    record(options, results)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--adapters", type=int, nargs="+", default=[0, 1, 8])
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def config(options: argparse.Namespace, adapters: AdapterConfig | None) -> EngineConfig:
    length = options.prompt_tokens + options.new_tokens
    largest = max(options.batch_sizes)
    return EngineConfig(
        kv_tokens=largest * (length + 16),
        max_context=length,
        max_num_sequences=largest,
        enable_prefix_cache=False,
        adapters=adapters,
    )


def random_adapter(spec: ModelSpec, rank: int, *, seed: int) -> Adapter:
    """Return one pair for each of q, k, v, o, gate, up and down of every layer."""
    generator = torch.Generator().manual_seed(seed)

    def block(num_rows: int, width: int, start: int = 0) -> Block:
        a_RI = torch.randn(rank, width, generator=generator) / width**0.5
        return Block(a_RI, 0.01 * torch.randn(num_rows, rank, generator=generator), 2.0, start)

    blocks: dict[str, tuple[Block, ...]] = {}
    for index, layer in enumerate(spec.layers):
        mixer, ffn = layer.mixer, layer.ffn
        starts = [sum(mixer.qkv_rows[:part]) for part in range(3)]
        blocks[f"layers.{index}.mixer.qkv"] = tuple(
            block(size, spec.dim, start) for size, start in zip(mixer.qkv_rows, starts, strict=True)
        )
        blocks[f"layers.{index}.mixer.out"] = (block(spec.dim, mixer.query_dim),)
        blocks[f"layers.{index}.ffn.gate_up"] = (
            block(ffn.hidden_dim, spec.dim),
            block(ffn.hidden_dim, spec.dim, ffn.hidden_dim),
        )
        blocks[f"layers.{index}.ffn.down"] = (block(spec.dim, ffn.hidden_dim),)
    return Adapter(blocks)


def measure(
    plain: LLM, adapted: LLM, batch_size: int, options: argparse.Namespace
) -> dict[str, list[Rates]]:
    """Return the rates of every round, by number of adapters."""
    runs: dict[str, tuple[LLM, int]] = {"none": (plain, 0)}
    runs |= {str(count): (adapted, count) for count in options.adapters}
    rates: dict[str, list[Rates]] = {label: [] for label in runs}
    for round_number in range(options.rounds + 1):
        for label, (llm, count) in runs.items():
            rate = run(llm, count, batch_size, options)
            if round_number:  # the first one warms up
                rates[label].append(rate)
    return rates


def relative(values: list[Rates], bases: list[Rates], clock: int) -> float:
    """Return the median over rounds of a rate's ratio to that of none."""
    pairs = zip(values, bases, strict=True)
    return statistics.median(value[clock] / base[clock] for value, base in pairs)


def run(llm: LLM, count: int, batch_size: int, options: argparse.Namespace) -> Rates:
    """Return tokens per second of wall time and of processor time."""
    generator = torch.Generator().manual_seed(batch_size)
    shape = (batch_size, options.prompt_tokens)
    prompts = torch.randint(VOCAB_SIZE, shape, generator=generator).tolist()
    sampling = SamplingParams(temperature=0.0, max_tokens=options.new_tokens, ignore_eos=True)
    names = [f"adapter-{row % count}" if count else None for row in range(batch_size)]
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    llm.generate(prompts, sampling, adapter=names)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    num_tokens = batch_size * options.new_tokens
    return num_tokens / wall_s, num_tokens / cpu_s


if __name__ == "__main__":
    main()
