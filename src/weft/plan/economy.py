"""What it costs: device hours, money per million tokens, energy, and where the money goes."""

from __future__ import annotations

from dataclasses import dataclass

_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Bill:
    """What a run takes.

    Attributes:
        device_hours: Devices times hours.
        money: In the currency of the price.
        energy_kwh: At the wall of the devices, without cooling.
    """

    device_hours: float
    money: float
    energy_kwh: float


def run_bill(
    num_devices: int,
    seconds: float,
    *,
    price_per_hour: float = 2.0,
    power_w: float = 700.0,
    power_share: float = 0.8,
) -> Bill:
    """Return the bill of a run.

    Args:
        num_devices: Devices.
        seconds: Wall-clock time.
        price_per_hour: Of one device.
        power_w: Thermal design power of one device.
        power_share: Mean power over it while training.
    """
    hours = num_devices * seconds / _SECONDS_PER_HOUR
    return Bill(hours, hours * price_per_hour, hours * power_w * power_share / 1e3)


def price_per_million_tokens(
    tokens_per_s: float, *, num_devices: int = 1, price_per_hour: float = 2.0
) -> float:
    """Return the price of a million tokens at a rate over all devices.

    >>> round(price_per_million_tokens(14.8e3, num_devices=8), 4)
    0.3003
    """
    return num_devices * price_per_hour / (tokens_per_s * _SECONDS_PER_HOUR) * 1e6


def price_ratio(prefill_tokens_per_s: float, decode_tokens_per_s: float) -> float:
    """Return what an output token costs over an input token on the same device.

    Decode reads every weight for each step and prefill once per prompt, so the ratio is large at
    a small decode batch and falls to near one when decode is bound by compute (row PM16).
    """
    return prefill_tokens_per_s / decode_tokens_per_s


def days_per_trillion_tokens(device_hours_per_trillion: float, num_devices: int) -> float:
    """Return days for 10¹² tokens.

    >>> round(days_per_trillion_tokens(180e3, 2048), 2)
    3.66
    """
    return device_hours_per_trillion / num_devices / 24.0


def training_days(flops: float, num_devices: int, peak_flops: float, mfu: float) -> float:
    """Return days of a training run at a share of the peak."""
    return flops / (num_devices * peak_flops * mfu) / 86_400.0


def weight_bytes(num_parameters: float, bits: float) -> float:
    """Return bytes of the weights at so many bits each.

    >>> weight_bytes(671e9, 16) / 1e9, weight_bytes(671e9, 8) / 1e9
    (1342.0, 671.0)
    """
    return num_parameters * bits / 8.0


def serving_bytes(
    num_parameters: float,
    bits: float,
    *,
    kv_bytes_per_token: float,
    num_tokens: float,
    overhead_share: float = 0.1,
) -> float:
    """Return memory to serve: weights, cache, and a share for activations and the runtime."""
    weights = weight_bytes(num_parameters, bits)
    return (weights + kv_bytes_per_token * num_tokens) * (1.0 + overhead_share)
