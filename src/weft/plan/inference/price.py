"""Money and energy per million tokens, input and output apart.

A prompt is one pass over many tokens and bound by compute; an output token is one of a batch and,
in small batches, bound by reading weights. So output costs more, and more so the smaller the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import ConfigError
from weft.plan.inference.disaggregate import prefill_seconds
from weft.plan.inference.load import Traffic
from weft.plan.inference.step import StepModel
from weft.plan.work import Work

_MILLION = 1e6
_JOULES_PER_KWH = 3.6e6
# Mean power of a busy device over its thermal design power; decode leaves compute units idle
# (measured for inference by Patel et al. 2024, arXiv:2308.12908: 0.6 to 0.9).
PREFILL_POWER_SHARE = 0.9
DECODE_POWER_SHARE = 0.65


@dataclass(frozen=True)
class TokenPrice:
    """Per million tokens.

    Attributes:
        input_cost: Money for prompt tokens.
        output_cost: Money for generated tokens.
        input_kwh: Energy for prompt tokens.
        output_kwh: Energy for generated tokens.
    """

    input_cost: float
    output_cost: float
    input_kwh: float
    output_kwh: float

    @property
    def ratio(self) -> float:
        """Output over input cost."""
        return self.output_cost / self.input_cost


def token_price(
    model: StepModel, traffic: Traffic, *, batch: int, device_hour_cost: float
) -> TokenPrice:
    """Return what tokens cost while ``batch`` sequences per data-parallel group decode together.

    Args:
        model: The deployment.
        traffic: What every request looks like.
        batch: Sequences that share a step.
        device_hour_cost: Of one device, in any currency.
    """
    if batch < 1 or device_hour_cost < 0.0:
        raise ConfigError(
            f"batch {batch} at {device_hour_cost} per hour", fix="use a batch of at least 1"
        )
    cluster, data = model.deployment.cluster, model.deployment.data
    input_s = prefill_seconds(model, traffic) / traffic.num_prompt_tokens / data
    output_s = model.seconds(Work.decode(batch, traffic.mean_context)) / batch / data
    second_cost = cluster.num_devices * device_hour_cost / 3600.0
    power_w = cluster.num_devices * cluster.device.power_w
    return TokenPrice(
        input_cost=input_s * second_cost * _MILLION,
        output_cost=output_s * second_cost * _MILLION,
        input_kwh=input_s * power_w * PREFILL_POWER_SHARE / _JOULES_PER_KWH * _MILLION,
        output_kwh=output_s * power_w * DECODE_POWER_SHARE / _JOULES_PER_KWH * _MILLION,
    )
