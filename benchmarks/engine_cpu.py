"""How many tokens per second does the engine write on a CPU, against transformers' generate?

Both run in this process, by turns, on the same weights (float32, greedy, no end token), so a busy
machine slows both. Prompts have one length, which spares transformers its padding. Printed per
batch size: the best round of each, their ratio, the part of the engine's time that is not spent in
the model (scheduling, batch building, sampling), and the part of the memory's measured bandwidth
that reading the weights once per step takes (MBU by gpt-fast's formula; prompts are in the time).

    python benchmarks/engine_cpu.py --json engine_cpu.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from record import record

from weft.checkpoint.hf import load_model
from weft.engine import runner as runner_module
from weft.engine.bandwidth import decode_mbu, decode_weight_bytes, measure_bandwidth
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.models import heads
from weft.models.decoder import Decoder
from weft.spec import SamplingParams

VOCAB_SIZE = 4096


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    theirs = build_peer(options)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load_model(Path(folder))
    results = []
    bandwidth = measure_bandwidth()
    print(f"weights {decode_weight_bytes(ours) / 1e6:.1f} MB, bandwidth {bandwidth / 1e9:.1f} GB/s")
    heading = (
        f"{'batch':>6} {'engine':>10} {'peer':>10} {'ratio':>6} {'not in model':>13} {'MBU':>6}"
    )
    print(f"{heading}   tokens/s")
    for batch_size in options.batch_sizes:
        result = compare(ours, theirs, batch_size, options)
        steps_per_s = result["engine_tokens_per_s"] / batch_size
        result["mbu"] = decode_mbu(decode_weight_bytes(ours), steps_per_s, bandwidth)
        results.append(result)
        print(
            f"{batch_size:6d} {result['engine_tokens_per_s']:10.0f} "
            f"{result['peer_tokens_per_s']:10.0f} {result['ratio']:6.2f} "
            f"{result['overhead_fraction']:13.1%} {result['mbu']:6.1%}"
        )
    record(
        options,
        results,
        peer=f"transformers {transformers.__version__} generate, batched",
        bandwidth_bytes_per_s=bandwidth,
        weight_bytes=decode_weight_bytes(ours),
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def build_peer(options: argparse.Namespace) -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=options.dim,
        intermediate_size=-(-8 * options.dim // 3 // 64) * 64,
        num_hidden_layers=options.layers,
        num_attention_heads=options.dim // 64,
        num_key_value_heads=max(options.dim // 128, 1),
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


def compare(
    ours: Decoder,
    theirs: transformers.LlamaForCausalLM,
    batch_size: int,
    options: argparse.Namespace,
) -> dict[str, float]:
    generator = torch.Generator().manual_seed(batch_size)
    shape = (batch_size, options.prompt_tokens)
    prompts = torch.randint(3, VOCAB_SIZE, shape, generator=generator)
    num_tokens = batch_size * options.new_tokens
    # Without the prefix cache: the rounds repeat the same prompts, which must be computed anew.
    config = EngineConfig(max_num_sequences=batch_size, enable_prefix_cache=False)
    llm = LLM(ours, None, config)
    model_time = ModelTime(llm)
    runner_module.heads = TimedHeads(model_time)
    params = SamplingParams(temperature=0.0, max_tokens=options.new_tokens, ignore_eos=True)
    run_engine = Timed(lambda: llm.generate(prompts.tolist(), params))
    run_peer = Timed(lambda: generate_peer(theirs, prompts, options.new_tokens))
    for _ in range(options.rounds + 1):
        run_engine()
        run_peer()
    engine_s, peer_s = run_engine.best_s, run_peer.best_s
    return {
        "batch_size": batch_size,
        "engine_tokens_per_s": num_tokens / engine_s,
        "peer_tokens_per_s": num_tokens / peer_s,
        "ratio": peer_s / engine_s,
        "overhead_fraction": 1.0 - model_time.total_s / run_engine.total_s,
    }


@torch.inference_mode()
def generate_peer(
    theirs: transformers.LlamaForCausalLM, prompts: torch.Tensor, num_new_tokens: int
) -> torch.Tensor:
    return theirs.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=False,
        min_new_tokens=num_new_tokens,
        max_new_tokens=num_new_tokens,
        pad_token_id=0,
    )


class Timed:
    """Runs something several times and keeps the best time; the first run warms up."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.best_s = float("inf")
        self.total_s = 0.0
        self._warm = False

    def __call__(self) -> None:
        start_s = time.perf_counter()
        self.call()
        duration_s = time.perf_counter() - start_s
        self.total_s += duration_s
        if self._warm:
            self.best_s = min(self.best_s, duration_s)
        self._warm = True


class ModelTime:
    """Adds up the time spent in the model and its head."""

    def __init__(self, llm: LLM) -> None:
        self.total_s = 0.0
        runner = llm.core.runner
        runner.model = TimedModel(runner.model, self)

    def timed(self, call: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def run(*args: object) -> torch.Tensor:
            start_s = time.perf_counter()
            result = call(*args)
            self.total_s += time.perf_counter() - start_s
            return result

        return run


class TimedHeads:
    """Stands in for ``weft.models.heads`` in the runner."""

    def __init__(self, times: ModelTime) -> None:
        self.logits = times.timed(heads.logits)


class TimedModel:
    """Passes everything on to the model and times the blocks and the head."""

    def __init__(self, model: Decoder, times: ModelTime) -> None:
        self._model = model
        self._forward = times.timed(model)

    def __call__(self, tokens_T: torch.Tensor, context: object) -> torch.Tensor:
        return self._forward(tokens_T, context)

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)


if __name__ == "__main__":
    main()
