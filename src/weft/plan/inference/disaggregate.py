"""Prefill and decode apart: how many of each, what the link carries, how long requests take.

A request waits for a prefill worker, is computed there, moves its keys and values, and decodes
elsewhere, undisturbed by prompts. With ``x`` prefill workers of rate ``r_p`` and ``y`` decode
workers of rate ``r_d`` the pair delivers ``min(x·r_p, y·r_d)``; the link carries that rate times
the bytes of a prompt's cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from weft.core.errors import ConfigError
from weft.plan.hardware.links import Link
from weft.plan.inference.load import Traffic, max_running
from weft.plan.inference.step import StepModel
from weft.plan.work import Work

# A closed loop settles in a few rounds; its map is monotone and the batch is bounded.
_ROUNDS = 40


@dataclass(frozen=True)
class Disaggregated:
    """A pair of pools.

    Attributes:
        prefill: One prefill worker.
        num_prefill: Workers.
        decode: One decode worker.
        num_decode: Workers.
        link: What keys and values travel over, per worker.
    """

    prefill: StepModel
    num_prefill: int
    decode: StepModel
    num_decode: int
    link: Link

    @property
    def num_devices(self) -> int:
        prefill, decode = self.prefill.deployment.cluster, self.decode.deployment.cluster
        return self.num_prefill * prefill.num_devices + self.num_decode * decode.num_devices


@dataclass(frozen=True)
class DisaggregatedEstimate:
    """A steady state of two pools.

    Attributes:
        ttft_s: Mean time to first token, transfer included.
        tpot_s: Mean time per further token.
        requests_per_s: Answered.
        output_tokens_per_s: Generated.
        prefill_busy: Share of the prefill pool's time in use.
        transfer_s: Of one prompt's keys and values.
        link_bytes_per_s: Over all links together.
    """

    ttft_s: float
    tpot_s: float
    requests_per_s: float
    output_tokens_per_s: float
    prefill_busy: float
    transfer_s: float
    link_bytes_per_s: float


@dataclass(frozen=True)
class PoolRatio:
    """How many workers of each kind keep each other busy.

    Attributes:
        num_prefill: Prefill workers, in lowest terms.
        num_decode: Decode workers.
        requests_per_s: What so many deliver.
        per_device: Requests per second and device.
    """

    num_prefill: int
    num_decode: int
    requests_per_s: float
    per_device: float


def estimate_disaggregated(
    pools: Disaggregated, traffic: Traffic, *, num_clients: int
) -> DisaggregatedEstimate:
    """Predict a closed loop over two pools by iterating rate and batch to balance."""
    if num_clients < 1:
        raise ConfigError(f"num_clients is {num_clients}", fix="use at least 1")
    constants = pools.prefill.constants
    prompt_s = prefill_seconds(pools.prefill, traffic)
    paced_s = prefill_seconds(pools.prefill.under_load(), traffic)
    servers = pools.num_prefill * pools.prefill.deployment.data
    transfer_s = pools.link.seconds(transfer_bytes(pools.prefill, traffic))
    groups = pools.num_decode * pools.decode.deployment.data
    most = max_running(pools.decode, traffic)
    running = min(most, -(-num_clients // groups))
    rate, step_s = servers / paced_s, 0.0
    for _ in range(_ROUNDS):
        step_s = pools.decode.seconds(Work.decode(running, traffic.mean_context))
        answer_s = traffic.num_output_tokens * step_s
        fixed_s = constants.request_s + prompt_s + transfer_s + answer_s
        rate = min(num_clients / fixed_s, servers / paced_s, groups * most / answer_s)
        settled = max(1, min(most, round(rate * answer_s / groups)))
        if settled == running:
            break
        running = (running + settled) // 2 if abs(settled - running) > 1 else settled
    busy = min(1.0, rate * paced_s / servers)
    # Little's law gives the wait when prefill is the bottleneck; else bursts queue for it.
    waiting_s = max(0.0, num_clients / rate - fixed_s)
    # The first requests of all clients come at once.
    burst_s = max(0.0, num_clients / servers - 1.0) / 2 * prompt_s / traffic.requests_per_client
    return DisaggregatedEstimate(
        ttft_s=constants.request_s + prompt_s + transfer_s + max(waiting_s, burst_s),
        tpot_s=step_s,
        requests_per_s=rate,
        output_tokens_per_s=rate * traffic.num_output_tokens,
        prefill_busy=busy,
        transfer_s=transfer_s,
        link_bytes_per_s=rate * transfer_bytes(pools.prefill, traffic) * _devices(pools.prefill),
    )


def best_ratio(
    prefill: StepModel,
    decode: StepModel,
    traffic: Traffic,
    *,
    max_tpot_s: float | None = None,
    most_workers: int = 32,
) -> PoolRatio:
    """Return the numbers of workers that deliver most per device.

    Args:
        prefill: One prefill worker.
        decode: One decode worker.
        traffic: What every request looks like.
        max_tpot_s: Decode batches are kept so small that a token takes no longer.
        most_workers: Of each kind.

    Raises:
        ConfigError: not even one sequence decodes in ``max_tpot_s``.
    """
    paced_s = prefill_seconds(prefill.under_load(), traffic)
    prefill_rate = prefill.deployment.data / paced_s
    decode_rate = _decode_rate(decode, traffic, max_tpot_s)
    best = PoolRatio(1, 1, 0.0, 0.0)
    for x in range(1, most_workers + 1):
        for y in range(1, most_workers + 1):
            rate = min(x * prefill_rate, y * decode_rate)
            per_device = rate / (x * _devices(prefill) + y * _devices(decode))
            if gcd(x, y) == 1 and per_device > best.per_device:
                best = PoolRatio(x, y, rate, per_device)
    return best


def prefill_seconds(model: StepModel, traffic: Traffic) -> float:
    """Return the time of one prompt on a worker that computes nothing else."""
    work = Work.prefill(1, traffic.num_new_tokens, traffic.num_cached_tokens)
    return model.seconds(work, graphs=False)


def transfer_bytes(model: StepModel, traffic: Traffic) -> float:
    """Return the cache of one prompt on one device; all devices send at once."""
    return traffic.num_prompt_tokens * model.deployment.kv_bytes_per_token


def _decode_rate(model: StepModel, traffic: Traffic, max_tpot_s: float | None) -> float:
    """Return requests per second of one decode worker at its largest allowed batch."""
    low, high = 1, max_running(model, traffic)
    limit = float("inf") if max_tpot_s is None else max_tpot_s
    if _decode_step(model, traffic, low) > limit:
        raise ConfigError(
            f"one sequence takes {_decode_step(model, traffic, 1) * 1e3:.2f} ms per token",
            fix="allow more than that, or use more devices per decode worker",
        )
    while low < high:
        middle = (low + high + 1) // 2
        if _decode_step(model, traffic, middle) <= limit:
            low = middle
        else:
            high = middle - 1
    step_s = _decode_step(model, traffic, low)
    return low * model.deployment.data / (step_s * traffic.num_output_tokens)


def _decode_step(model: StepModel, traffic: Traffic, batch: int) -> float:
    return model.seconds(Work.decode(batch, traffic.mean_context))


def _devices(model: StepModel) -> int:
    return model.deployment.cluster.num_devices
