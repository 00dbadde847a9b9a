"""How fast is an engine on two ranks with a thread each, against one process with two threads?

Both serve the same random model (float32, greedy, no end token) on the CPU, by turns, so a busy
machine slows both. Printed per batch size: tokens per second of each (medians), their ratio, and
the share of rank 0's time that its collectives took, waiting for the other rank included.

On a CPU this is no way to be faster: cores that share memory need no messages. It shows what plans,
sums over ranks and confirmations cost.

    python benchmarks/tensor_parallel.py --json tensor_parallel.json
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from record import record

from weft.checkpoint.hf import save_model
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.engine.parallel.lockstep import Lockstep
from weft.models.decoder import Decoder
from weft.spec import ModelShape, SamplingParams
from weft.text.train import train_bpe

VOCAB_SIZE = 4096


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.ranks)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = ModelShape(
            dim=options.dim, num_layers=options.layers, num_heads=options.dim // 64,
            num_kv_heads=max(options.dim // 128, options.ranks), context_length=1024,
        )  # fmt: skip
        tokenizer = train_bpe(["To weave is to cross a weft with a warp. "], 270)
        save_model(Decoder(shape.build(VOCAB_SIZE)), folder, tokenizer=tokenizer)
        config = EngineConfig(num_blocks=2048, enable_prefix_cache=False)
        spread = LLM.load(folder, config=config, tensor_parallel=options.ranks)
        alone = LLM.load(folder, config=config)
        print(f"{'batch':>6} {'1 process':>10} {'ranks':>10} {'ratio':>6} {'collectives':>12}")
        for batch_size in options.batch_sizes:
            results.append(compare(alone, spread, batch_size, options))
            print(
                "{batch_size:6d} {one_process_tokens_per_s:10.0f} {ranks_tokens_per_s:10.0f} "
                "{ratio:6.2f} {collectives_fraction:12.1%}".format(**results[-1])
            )
        spread.close()
    record(options, results)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def compare(
    alone: LLM, spread: LLM, batch_size: int, options: argparse.Namespace
) -> dict[str, float]:
    generator = torch.Generator().manual_seed(batch_size)
    shape = (batch_size, options.prompt_tokens)
    prompts = torch.randint(3, VOCAB_SIZE, shape, generator=generator).tolist()
    collectives = CollectiveTime(spread.core.ranks.group)
    times_s: dict[LLM, list[float]] = {alone: [], spread: []}
    collective_s = 0.0
    for round_ in range(options.rounds + 1):  # the first one warms up
        for llm in times_s:
            torch.set_num_threads(options.ranks if llm is alone else 1)
            collectives.total_s = 0.0
            duration_s = generate(llm, prompts, options.new_tokens)
            if round_:
                times_s[llm].append(duration_s)
                collective_s += collectives.total_s
    collectives.restore()
    num_tokens = batch_size * options.new_tokens
    one_s, ranks_s = statistics.median(times_s[alone]), statistics.median(times_s[spread])
    return {
        "batch_size": batch_size,
        "one_process_tokens_per_s": num_tokens / one_s,
        "ranks_tokens_per_s": num_tokens / ranks_s,
        "ratio": one_s / ranks_s,
        "collectives_fraction": collective_s / sum(times_s[spread]),
    }


def generate(llm: LLM, prompts: list[list[int]], num_new_tokens: int) -> float:
    params = SamplingParams(temperature=0.0, max_tokens=num_new_tokens, ignore_eos=True)
    start_s = time.perf_counter()
    llm.generate(prompts, params)
    return time.perf_counter() - start_s


class CollectiveTime:
    """Adds up the time that a group's collectives take."""

    def __init__(self, group: Lockstep) -> None:
        self.total_s = 0.0
        self._inner, self._group = group.group, group
        group.group = self

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        start_s = time.perf_counter()
        result = self._inner.all_reduce(tensor)
        self.total_s += time.perf_counter() - start_s
        return result

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        start_s = time.perf_counter()
        result = self._inner.all_gather(tensor)
        self.total_s += time.perf_counter() - start_s
        return result

    def restore(self) -> None:
        self._group.group = self._inner


if __name__ == "__main__":
    main()
