"""How well decoding uses the memory: MBU by gpt-fast's formula.

A decode step reads every weight once, whatever its batch; that is what it cannot do without, so

    MBU = bytes of weights per step * steps per second / bandwidth

with one token per step and sequence. An embedding that is only looked up is not read whole, and of
experts only those that a token uses are. The bandwidth is best measured on the machine at hand:
``measure_bandwidth`` reads and writes more than the caches hold.
"""

from __future__ import annotations

import time

import torch

from weft.models.decoder import Decoder
from weft.plan.utilization import bandwidth_utilization
from weft.spec import MoESpec


def decode_weight_bytes(model: Decoder) -> int:
    """Return the bytes of weights that one sequence's decode step reads."""
    total = 0
    for name, parameter in model.named_parameters():
        size_bytes = parameter.numel() * parameter.element_size()
        if (name == "embed.weight" and model.head is not None) or name.startswith("mtp."):
            continue
        if ".experts." in name:
            ffn = model.spec.layers[int(name.split(".")[1])].ffn
            assert isinstance(ffn, MoESpec)
            size_bytes = size_bytes * ffn.top_k // ffn.num_experts
        total += size_bytes
    return total


def decode_mbu(weight_bytes: int, steps_per_s: float, bandwidth: float) -> float:
    """Return MBU of decoding, 1 for all of the bandwidth (bytes per second).

    Llama-2-7B in 16 bits on an A100 of 2.0 TB/s, gpt-fast's second step:

    >>> f"{decode_mbu(13_476_831_232, 107.0, 2.0e12):.0%}"
    '72%'
    """
    return bandwidth_utilization(weight_bytes, steps_per_s, bandwidth)


def measure_bandwidth(
    device: torch.device | str = "cpu", *, size_bytes: int = 2**28, num_rounds: int = 5
) -> float:
    """Return bytes read and written per second by the best of some copies."""
    source = torch.ones(size_bytes // 4, device=device)
    target = torch.empty_like(source)
    best_s = float("inf")
    for _ in range(num_rounds + 1):
        start_s = time.perf_counter()
        target.copy_(source)
        if source.device.type == "cuda":
            torch.cuda.synchronize(source.device)
        best_s = min(best_s, time.perf_counter() - start_s)
    return 2 * size_bytes / best_s
