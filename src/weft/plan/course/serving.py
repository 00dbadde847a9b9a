"""Serving speed from peak FLOPs (InfraTech, LLMForEverybody), and what it forgets.

The courses divide peak FLOP/s by FLOPs per token. At batch size one every weight is read for each
token, so the memory bandwidth bounds the speed, some forty times lower; ``weft.plan.kernels`` has
the roofline. The "10.3 tokens/s" of the quick formula are requests per second.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.plan.course.counting import GroupedDecoder


@dataclass(frozen=True)
class SpeedEstimate:
    """What the course prints for a 1,024-token prompt and as many new tokens.

    Attributes:
        prefill_tflop: Of the prompt.
        decode_tflop: Mean per new token.
        ttft_ms: Prompt FLOPs over peak.
        tokens_per_s: Peak over FLOPs per token.
        tokens_per_s_rounded: The same from the rounded FLOPs per token.
    """

    prefill_tflop: float
    decode_tflop: float
    ttft_ms: float
    tokens_per_s: float
    tokens_per_s_rounded: float


def peak_flops_estimate(
    model: GroupedDecoder | None = None,
    *,
    num_prompt: int = 1024,
    num_output: int = 1024,
    peak_tflops: float = 148.0,
) -> SpeedEstimate:
    """Return speeds from peak FLOPs alone; an upper bound only at large batch.

    >>> estimate = peak_flops_estimate()
    >>> round(estimate.prefill_tflop, 2), round(estimate.ttft_ms), int(estimate.tokens_per_s)
    (65.28, 441, 2297)
    """
    model = model or GroupedDecoder()
    prefill = model.prefill_flops(num_prompt) / 1e12
    decode = model.mean_decode_flops(num_prompt, num_output) / 1e12
    return SpeedEstimate(
        prefill_tflop=prefill,
        decode_tflop=decode,
        ttft_ms=1e3 * prefill / peak_tflops,
        tokens_per_s=peak_tflops / decode,
        tokens_per_s_rounded=peak_tflops / round(decode, 2),
    )


def quick_prefill_ms(num_parameters: float, num_tokens: int, peak_flops: float) -> float:
    """Return 2NP over peak, in milliseconds.

    >>> round(quick_prefill_ms(32e9, 1000, 148e12))
    432
    """
    return 1e3 * 2 * num_parameters * num_tokens / peak_flops


def quick_tokens_per_s(num_parameters: float, peak_flops: float) -> float:
    """Return peak over 2N."""
    return peak_flops / (2 * num_parameters)


def bandwidth_tokens_per_s(weight_bytes: float, bandwidth: float) -> float:
    """Return the bound of batch size one: every weight is read for each token."""
    return bandwidth / weight_bytes


def quick_requests_per_s(
    num_devices: int, peak_flops: float, utilization: float, num_parameters: float, num_tokens: int
) -> float:
    """Return requests per second of ``num_tokens`` each: n · peak · share / 2NL.

    >>> round(quick_requests_per_s(10, 312e12, 0.462, 70e9, 1000), 1)
    10.3
    """
    return num_devices * peak_flops * utilization / (2 * num_parameters * num_tokens)
