"""How fast is a training step on this CPU, against transformers and against the machine?

For each width and precision, one process trains the same Llama shape on the same tokens with

- ``weft``      ``weft.train.step.train_step`` with fused AdamW,
- ``hf``        transformers' LlamaForCausalLM in the usual eager loop with torch's default AdamW,
- ``hf_fused``  the same loop with ``AdamW(fused=True)``,

one step of each in turn, so that whatever else the machine does hits all alike. Every loop clips
gradients to norm 1. Printed are median tokens/s, the ratio of medians, and the share of the best
matmul rate seen in the same run (model FLOPs: 6 N + causal attention).

    python benchmarks/train_cpu.py --widths 256,512,768 --json train_cpu.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from weft.core.environment import describe_environment
from weft.data.batch import IGNORE, Batch
from weft.models.decoder import Decoder
from weft.plan.flops import training_flops
from weft.spec import ModelShape, ModelSpec
from weft.train.objective import NextTokenObjective
from weft.train.optim import OptimizerConfig, build_optimizer
from weft.train.precision import autocast
from weft.train.step import train_step

# On a machine shared with others, one thread and its processor time is the steadier measure.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# The products of a feed-forward layer over 1024 tokens, and a square one.
PEAK_SIZES = ((1024, 512, 2816), (1024, 1024, 1024), (1024, 2048, 1024))
Step = Callable[[], None]
Clock = Callable[[], float]


def weft_step(spec: ModelSpec, tokens_BS: np.ndarray, precision: str, optimizer: str) -> Step:
    model = Decoder(spec)
    config = OptimizerConfig(name=optimizer, lr=1e-4)  # type: ignore[arg-type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    optimizers = build_optimizer(model, config, orthogonalize_dtype=dtype)
    objective = NextTokenObjective()
    labels_BS = np.roll(tokens_BS, -1, axis=1)
    labels_BS[:, -1] = IGNORE
    lengths = (tokens_BS.shape[1],) * tokens_BS.shape[0]
    batch = Batch(tokens_BS.reshape(-1), labels_BS.reshape(-1), lengths)
    return lambda: train_step(model, optimizers, [batch], objective, precision=precision) and None


def hf_step(spec: ModelSpec, tokens_BS: np.ndarray, precision: str, *, fused: bool) -> Step:
    from transformers import LlamaConfig, LlamaForCausalLM

    mixer, ffn = spec.layers[0].mixer, spec.layers[0].ffn
    config = LlamaConfig(
        vocab_size=spec.vocab_size,
        hidden_size=spec.dim,
        intermediate_size=ffn.hidden_dim,
        num_hidden_layers=spec.num_layers,
        num_attention_heads=mixer.num_heads,
        num_key_value_heads=mixer.num_kv_heads,
        head_dim=mixer.head_dim,
        tie_word_embeddings=spec.tie_embeddings,
        max_position_embeddings=spec.context_length,
        use_cache=False,
    )
    model = LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused or None)
    ids_BS = torch.from_numpy(tokens_BS)

    def step() -> None:
        with autocast(precision, "cpu"):
            loss = model(input_ids=ids_BS, labels=ids_BS).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def matmul_peak(precision: str, clock: Clock, budget_s: float = 1.0) -> float:
    """Return the best FLOP/s of a few matrix products, by MKL or oneDNN, whichever is faster."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    products: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = [
        lambda a_MK, b_NK: torch.mm(a_MK, b_NK.t())
    ]
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        products.append(
            lambda a_MK, b_NK: torch.ops.mkldnn._linear_pointwise(a_MK, b_NK, None, "none", [], "")
        )
    best = 0.0
    for m, k, n in PEAK_SIZES:
        a_MK, b_NK = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
        for product in products:
            end = clock() + budget_s / len(PEAK_SIZES) / len(products)
            while clock() < end:
                start = clock()
                product(a_MK, b_NK)
                best = max(best, 2 * m * k * n / (clock() - start))
    return best


def interleaved(steps: dict[str, Step], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Time one call of each in turn, ``rounds`` times, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = clock()
            step()
            if number:
                seconds[name].append(clock() - start)
    return seconds


def measure(arguments: argparse.Namespace, dim: int, precision: str) -> dict[str, object]:
    heads = max(dim // 64, 1)
    shape = ModelShape(
        dim=dim,
        num_layers=arguments.layers,
        num_heads=heads,
        num_kv_heads=heads // 2 if heads % 2 == 0 else heads,
        context_length=arguments.sequence_length,
    )
    spec = shape.build(arguments.vocab)
    rng = np.random.default_rng(0)
    tokens_BS = rng.integers(0, arguments.vocab, (arguments.batch, arguments.sequence_length))
    steps = {"weft": weft_step(spec, tokens_BS, precision, "adamw")}
    if arguments.muon:
        steps["weft_muon"] = weft_step(spec, tokens_BS, precision, "muon_adamw")
    with contextlib.suppress(ImportError):
        steps["hf"] = hf_step(spec, tokens_BS, precision, fused=False)
        steps["hf_fused"] = hf_step(spec, tokens_BS, precision, fused=True)
    clock = CLOCKS[arguments.clock]
    before = matmul_peak(precision, clock)
    seconds = interleaved(steps, arguments.rounds, clock)
    peak = max(before, matmul_peak(precision, clock))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    flops = training_flops(spec, (tokens_BS.shape[1],) * tokens_BS.shape[0])
    return {
        "dim": dim,
        "precision": precision,
        "num_tokens": int(tokens_BS.size),
        "matmul_peak_flops": peak,
        "tokens_per_s": {name: tokens_BS.size / value for name, value in medians.items()},
        "best_tokens_per_s": {name: tokens_BS.size / min(v) for name, v in seconds.items()},
        "share_of_peak": {name: flops / value / peak for name, value in medians.items()},
        "ratio_to": {
            name: value / medians["weft"] for name, value in medians.items() if name != "weft"
        },
    }


def show(row: dict[str, object]) -> None:
    speeds, shares = row["tokens_per_s"], row["share_of_peak"]
    assert isinstance(speeds, dict)
    assert isinstance(shares, dict)
    assert isinstance(row["ratio_to"], dict)
    print(
        f"\nwidth {row['dim']}, {row['precision']}, {row['num_tokens']} tokens a step, "
        f"matmul peak {row['matmul_peak_flops'] / 1e9:.0f} GFLOP/s"  # type: ignore[operator]
    )
    for name, speed in speeds.items():
        ratio = row["ratio_to"].get(name)
        versus = "" if ratio is None else f"   weft is {ratio:.2f}x"
        print(f"  {name:10} {speed:8.0f} tokens/s   {shares[name]:5.1%} of peak{versus}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", default="256,512,768")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--muon", action="store_true", help="time Muon + AdamW too")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.clock == "cpu":
        arguments.threads = 1  # processor time adds up over threads
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"{torch.get_num_threads()} threads, {arguments.clock} time, torch {torch.__version__}")
    rows = []
    for dim in map(int, arguments.widths.split(",")):
        for precision in arguments.precisions.split(","):
            rows.append(measure(arguments, dim, precision))
            show(rows[-1])
    if arguments.json:
        result = {"environment": describe_environment(), "rows": rows}
        result |= {"num_threads": torch.get_num_threads(), "clock": arguments.clock}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
