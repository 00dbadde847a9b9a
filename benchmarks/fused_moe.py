"""How fast is a mixture whose shared expert is one more routed expert, against a separate one?

Both layers have the same weights and take turns; printed are medians in milliseconds per number of
tokens, and their ratio (above 1: fused is faster).

    python benchmarks/fused_moe.py --json fused_moe.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from record import record

from weft.nn.context import StepContext
from weft.nn.moe.fused import FusedMoE
from weft.nn.moe.layer import MoE
from weft.spec import MLPSpec, MoESpec


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 16, 128, 512])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--expert-dim", type=int, default=256)
    parser.add_argument("--experts", type=int, default=32)
    parser.add_argument("--top-k", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    expert = MLPSpec(options.expert_dim)
    separate = MoE(
        options.dim, MoESpec(options.experts, options.top_k, expert, shared=expert), layer=0
    )
    layers = {"separate": separate, "fused": FusedMoE(separate)}
    print(f"{'tokens':>7} {'separate':>9} {'fused':>9} {'ratio':>6}")
    results = []
    for num_tokens in options.tokens:
        x_TD = torch.randn(num_tokens, options.dim)
        times_ms: dict[str, list[float]] = {name: [] for name in layers}
        for _ in range(options.rounds):
            for name, layer in layers.items():
                start_s = time.perf_counter()
                layer(x_TD, StepContext.packed([num_tokens]))
                times_ms[name].append(1000.0 * (time.perf_counter() - start_s))
        medians = {f"{name}_ms": statistics.median(each) for name, each in times_ms.items()}
        ratio = medians["separate_ms"] / medians["fused_ms"]
        results.append({"num_tokens": num_tokens, **medians, "ratio": ratio})
        print(
            f"{num_tokens:7d} {medians['separate_ms']:9.3f} {medians['fused_ms']:9.3f} {ratio:6.2f}"
        )
    record(options, results)


if __name__ == "__main__":
    main()
