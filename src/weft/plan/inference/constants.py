"""Constants of serving that no data sheet states, fitted to published measurements.

They belong to kernels and servers in general, never to a row, a source or a model. The fit and its
error are ``weft.plan.validate.inference``'s business; the result lies in ``data/inference.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class ServingConstants:
    """Shares are of the device's own reached rates (``HardwareSpec``); times in seconds.

    The defaults are typical values, from where a fit starts and to which it is pulled; estimates
    use ``serving_constants``.

    Attributes:
        product_share: Matrix products in serving engines; their batches are ragged.
        quantised_share: Further factor for 8-bit products: scaling, and conversion around them.
        four_bit_share: Further factor for 4-bit products.
        expert_share: Further factor for grouped products over experts.
        expert_imbalance: Busiest device's experts over the mean, when devices serve different
            sequences.
        weight_share: Bandwidth while weights stream through small batches.
        expert_half_bytes: Size of one expert's matrix on one device at which its weights stream at
            half that bandwidth; small pieces do not fill the memory system.
        popularity_shape: Of the Gamma distribution of experts' popularity; infinite if routing is
            balanced. Fewer distinct experts are used by a batch when some are popular.
        unpack_share: Further factor for weights that are unpacked before the product.
        attention_share: Compute of attention over long prompts.
        cache_share: Bandwidth while keys and values stream in decode.
        kernel_s: Of each kernel on the device, besides its work.
        launch_s: The host's for each kernel that no captured graph contains, in prefill.
        eager_launch: Launches over those of an engine that compiles prompts and so fuses kernels.
        expert_kernel_s: Of routing and permuting around each mixture of experts, on the device.
        expert_launch_s: The host's for the same, without a graph.
        latent_launch_s: The host's for the small kernels of latent attention, without a graph.
        collective_s: Of each collective, besides what its link takes.
        step_s: Of each step, on the host of a server: scheduling, inputs, sampling.
        sequence_s: Of each sequence in a step: sampling, text, streaming.
        request_s: Of each request: transport and tokens of the prompt.
        static_step_s: Of each step in a loop without a server.
        mixing_share: Share of a prompt's time that decoding beside it has to wait.
        length_spread: Part of an answer's time over which answers that began together end, because
            lengths differ.
    """

    product_share: float = 0.85
    quantised_share: float = 0.95
    four_bit_share: float = 0.85
    expert_share: float = 0.35
    expert_imbalance: float = 1.7
    weight_share: float = 0.9
    expert_half_bytes: float = 5e5
    popularity_shape: float = 1.0
    unpack_share: float = 0.7
    attention_share: float = 1.0
    cache_share: float = 1.0
    kernel_s: float = 2.5e-6
    launch_s: float = 20e-6
    eager_launch: float = 2.0
    expert_kernel_s: float = 5e-6
    expert_launch_s: float = 250e-6
    latent_launch_s: float = 500e-6
    collective_s: float = 7e-6
    step_s: float = 0.8e-3
    sequence_s: float = 10e-6
    request_s: float = 15e-3
    static_step_s: float = 0.2e-3
    mixing_share: float = 0.85
    length_spread: float = 0.1


@cache
def serving_constants() -> ServingConstants:
    """Return the shipped constants."""
    values = _shipped()["constants"]
    return ServingConstants(**{one.name: values[one.name] for one in fields(ServingConstants)})


def interval_factor(kind: str) -> float:
    """Return the factor of the 80 % interval of a kind of prediction.

    Measured on sources the constants were not fitted to; the widest for an unknown kind.
    """
    factors = _shipped()["interval_factors"]
    return factors.get(kind, max(factors.values()))


@cache
def _shipped() -> dict[str, dict[str, float]]:
    text = resources.files("weft.plan.data").joinpath("inference.json").read_text("utf-8")
    return json.loads(text)
