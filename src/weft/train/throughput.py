"""Model FLOPs of a training step, and how much of the machine they use.

Model FLOPs count the matmuls the model is made of, twice its multiply-adds, forward once and
backward twice (Kaplan et al. 2020, arXiv:2001.08361; Chowdhery et al. 2022, arXiv:2204.02311).
Attention counts only the pairs a causal document mask leaves; recomputation is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.spec import HardwareSpec, ModelSpec

PEAK_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def matmul_parameters(spec: ModelSpec) -> int:
    """Return how many weights every token is multiplied by; the embedding lookup is no matmul."""
    total = spec.vocab_size * spec.dim
    for layer in spec.layers:
        mixer, ffn = layer.mixer, layer.ffn
        total += spec.dim * (2 * mixer.query_dim + 2 * mixer.kv_dim)
        total += spec.dim * ffn.hidden_dim * (3 if ffn.gated else 2)
    return total


def attention_pairs(length: int, window: int | None = None) -> int:
    """Return the query-key pairs of a causal document.

    >>> attention_pairs(4), attention_pairs(4, window=2)
    (10, 7)
    """
    reach = length if window is None else min(window, length)
    return reach * (reach + 1) // 2 + (length - reach) * reach


def training_flops(spec: ModelSpec, lengths: Sequence[int]) -> int:
    """Return the model FLOPs of a forward and backward pass over documents of these lengths."""
    flops = 6 * matmul_parameters(spec) * sum(lengths)
    for layer in spec.layers:
        pairs = sum(attention_pairs(length, layer.mixer.window) for length in lengths)
        # Scores and weighted values: 2 multiply-adds per pair and query channel, forward.
        flops += 3 * 4 * layer.mixer.query_dim * pairs
    return flops


def model_flops_utilization(flops: float, seconds: float, peak_flops: float) -> float:
    """Return MFU: model FLOPs per second over the peak rate (arXiv:2204.02311, appendix B).

    With recomputed FLOPs added to ``flops`` the same quotient is HFU, the hardware's utilization.
    """
    return flops / seconds / peak_flops


def model_bandwidth_utilization(num_bytes: float, seconds: float, bandwidth: float) -> float:
    """Return MBU: bytes that had to be read per second over the memory's rate.

    For decoding these are the weights and the KV cache, once per step.
    """
    return num_bytes / seconds / bandwidth


def matmul_peak(hardware: HardwareSpec | None, precision: str) -> float | None:
    """Return the peak matmul rate in FLOP/s for a precision, or none where it is not known."""
    if hardware is None:
        return None
    return hardware.matmul_flops.get(PEAK_DTYPES[precision])
