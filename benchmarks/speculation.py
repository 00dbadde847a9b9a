"""How much faster does each way to guess make decoding on a CPU?

A small decoder learns a text of a few words in random order, and drafting heads learn the decoder.
The same prompts are then continued greedily with and without guesses. Printed per proposer: tokens
per step and sequence, share of guesses that held, tokens per second, and the ratio to decoding
without guesses in the same process. The limit is the tokens per step: guesses that cost nothing and
rows that are verified for nothing. All prompts are drawn from the same words, so text look-up does
better here than on most texts; the cost of each way is what this measures.

    python benchmarks/speculation.py --json speculation.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from record import record
from torch import nn

from weft.data.batch import Batch
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.speculation.config import SpeculationConfig, TreeShape
from weft.models.block_draft import BlockHead
from weft.models.decoder import Decoder
from weft.models.eagle import EagleHead
from weft.models.medusa import MedusaHeads
from weft.spec import ModelShape, SamplingParams
from weft.spec.request import Request
from weft.train.objective import NextTokenObjective
from weft.train.speculators import HeadTraining, train_head

VOCAB_SIZE = 512
WORD_LENGTH = 7


@dataclass(frozen=True)
class Way:
    """A proposer to measure."""

    name: str
    config: SpeculationConfig | None = None
    drafter: nn.Module | None = None


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    words = np.random.default_rng(1).integers(1, VOCAB_SIZE, (options.words, WORD_LENGTH))
    start_s = time.perf_counter()
    model = train(ModelShape(dim=options.dim, num_layers=options.layers), words, options.steps, 1)
    small = train(ModelShape(dim=options.dim // 2, num_layers=1), words, options.steps, 0)
    eagle = EagleHead(model.spec, ffn_dim=2 * options.dim)
    medusa = MedusaHeads(options.dim, 4)
    block = BlockHead(model.spec, ffn_dim=2 * options.dim, num_layers=2)
    for head in (eagle, medusa, block):
        config = HeadTraining(3e-3, run_ahead=4)
        train_head(model, head, batches(words, 5), num_steps=options.steps, config=config)
    train_s = time.perf_counter() - start_s
    results = []
    print(f"{model.num_parameters / 1e6:.1f}M parameters, drafting model "
          f"{small.num_parameters / 1e6:.2f}M, trained in {train_s:.0f} s")  # fmt: skip
    for batch_size in options.batch_sizes:
        print(f"\n{batch_size} sequences of {options.tokens} tokens")
        print(f"{'':>14} {'tokens/step':>12} {'held':>7} {'tok/s':>9} {'speed-up':>9}")
        requests = make_requests(words, batch_size, options.tokens)
        plain_rate = None
        for way in ways(small, eagle, medusa, block):
            result = measure(way, model, requests, options.repeats)
            plain_rate = plain_rate or result["tokens_per_s"]
            result["speedup"] = result["tokens_per_s"] / plain_rate
            results.append({"batch_size": batch_size, **result})
            print(
                f"{way.name:>14} {result['tokens_per_step']:12.2f} {result['acceptance']:7.1%} "
                f"{result['tokens_per_s']:9.0f} {result['speedup']:8.2f}x"
            )
    record(options, results)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--words", type=int, default=32)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def ways(small: Decoder, eagle: EagleHead, medusa: MedusaHeads, block: BlockHead) -> list[Way]:
    always = SpeculationConfig(max_draft=4, switch=None)
    tree = TreeShape(2, 4)
    return [
        Way("none"),
        Way("ngram", replace(always, kind="ngram")),
        Way("suffix", replace(always, kind="suffix")),
        Way("suffix tree", replace(always, kind="suffix", max_draft=8, tree=tree)),
        Way("draft model", replace(always, kind="draft"), small),
        Way("mtp", replace(always, kind="mtp")),
        Way("eagle", replace(always, kind="eagle"), eagle),
        Way("eagle tree", replace(always, kind="eagle", max_draft=8, tree=tree), eagle),
        Way("medusa", replace(always, kind="medusa"), medusa),
        Way("block", replace(always, kind="block"), block),
        Way("medusa tree", replace(always, kind="medusa", max_draft=8, tree=tree), medusa),
    ]


def train(shape: ModelShape, words: np.ndarray, num_steps: int, num_modules: int) -> Decoder:
    """Train a decoder and its prediction modules on the text."""
    spec = replace(shape.build(VOCAB_SIZE), num_mtp_layers=num_modules)
    model = Decoder(spec, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 20) * (1.0 - step / num_steps)
    )
    model.train()
    for _, batch in zip(range(num_steps), batches(words, 0), strict=False):
        loss = NextTokenObjective()(model, batch)
        optimizer.zero_grad()
        (loss.minimised / loss.count).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval().requires_grad_(False)


def text(words: np.ndarray, rng: np.random.Generator, length: int) -> np.ndarray:
    picked = words[rng.integers(len(words), size=length // WORD_LENGTH + 1)]
    return picked.reshape(-1)[:length]


def batches(words: np.ndarray, seed: int, *, rows: int = 8, length: int = 84) -> Iterator[Batch]:
    rng = np.random.default_rng(seed)
    while True:
        pieces = [text(words, rng, length) for _ in range(rows)]
        labels = np.concatenate([np.append(piece[1:], -100) for piece in pieces])
        yield Batch(np.concatenate(pieces), labels, (length,) * rows)


def make_requests(words: np.ndarray, num: int, num_tokens: int) -> list[Request]:
    rng = np.random.default_rng(2)
    params = SamplingParams(temperature=0.0, max_tokens=num_tokens)
    prompts = [text(words, rng, 40).tolist() for _ in range(num)]
    return [Request(str(i), tuple(prompt), params) for i, prompt in enumerate(prompts)]


def measure(way: Way, model: Decoder, requests: list[Request], repeats: int) -> dict:
    """Return the best of several runs, each with an engine of its own."""
    best: dict = {"tokens_per_s": 0.0}
    for _ in range(repeats):
        config = EngineConfig(
            num_blocks=64 * len(requests), max_num_sequences=len(requests), speculation=way.config
        )
        core = EngineCore(model, config=config, drafter=way.drafter)
        for request in requests:
            core.submit(request)
        core.step()  # the prompts
        num_steps, start_s = 0, time.perf_counter()
        while core.has_work:
            core.step()
            num_steps += 1
        seconds = time.perf_counter() - start_s
        num_tokens = sum(request.sampling.max_tokens - 1 for request in requests)
        stats = core.stats().speculation
        if num_tokens / seconds > best["tokens_per_s"]:
            best = {
                "proposer": way.name,
                "tokens_per_s": num_tokens / seconds,
                "tokens_per_step": 1.0 if stats is None else stats.tokens_per_draft,
                "acceptance": 0.0 if stats is None else stats.acceptance_rate,
                "accepted_by_position": () if stats is None else stats.num_accepted_by_position,
                "num_steps": num_steps,
            }
    return best


if __name__ == "__main__":
    main()
