"""A deployment under load: clients in a closed loop, and the most it delivers.

Steady state of continuous batching. ``r`` sequences run; while one produces its ``O`` tokens, the
prompts of the ``r − 1`` others pass through the same steps, each lengthening them by what its
tokens cost beside the decoding ones (weights are read once for both):

    T     = O · t_decode(r) + r · t_prompt          one turn over all sequences
    TPOT  = t_decode(r) + (r − 1) / O · t_prompt
    rate  = r / T

``r`` is the number of clients unless the cache holds fewer; the rest wait in line. A request's
first token waits for the step in progress, for prompts that came at the same time, for its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import ConfigError, ResourceError
from weft.plan.inference.step import StepModel
from weft.plan.work import Segment, Work


@dataclass(frozen=True)
class Traffic:
    """What every request looks like.

    Attributes:
        num_prompt_tokens: Of each request.
        num_output_tokens: Of each request.
        num_cached_tokens: Of the prompt, found in the prefix cache.
        max_tokens_per_step: Budget of a step; longer prompts go in chunks.
        max_num_sequences: Most sequences of one data-parallel group.
        prompts_first: Waiting prompts stop decoding until they are computed (SGLang's default);
            else they share steps with it (weft, vLLM, TensorRT-LLM).
    """

    num_prompt_tokens: int
    num_output_tokens: int
    num_cached_tokens: int = 0
    max_tokens_per_step: int = 8192
    max_num_sequences: int = 2048
    prompts_first: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.num_cached_tokens < self.num_prompt_tokens or self.num_output_tokens < 1:
            raise ConfigError(
                f"{self} is no traffic",
                fix="compute at least one prompt token and generate at least one",
            )

    @property
    def num_new_tokens(self) -> int:
        """Prompt tokens that are computed."""
        return self.num_prompt_tokens - self.num_cached_tokens

    @property
    def mean_context(self) -> int:
        """Context of a sequence halfway through its output."""
        return self.num_prompt_tokens + (self.num_output_tokens + 1) // 2


@dataclass(frozen=True)
class LoadEstimate:
    """A steady state.

    Attributes:
        ttft_s: Mean time to first token.
        tpot_s: Mean time per output token after the first.
        latency_s: End to end.
        requests_per_s: Answered, over all data-parallel groups.
        output_tokens_per_s: Generated.
        num_running: Sequences in a step of one group.
        decode_step_s: A step without prompts.
        prompt_s: What one prompt adds to the steps it passes through.
    """

    ttft_s: float
    tpot_s: float
    latency_s: float
    requests_per_s: float
    output_tokens_per_s: float
    num_running: int
    decode_step_s: float
    prompt_s: float


def estimate_closed_loop(model: StepModel, traffic: Traffic, *, num_clients: int) -> LoadEstimate:
    """Predict latency when every client waits for its answer before it asks again.

    Raises:
        ResourceError: not even one request fits into the cache.
    """
    if num_clients < 1:
        raise ConfigError(f"num_clients is {num_clients}", fix="use at least 1")
    local = -(-num_clients // model.deployment.data)
    return _steady(model, traffic, min(local, max_running(model, traffic)), local)


def estimate_max_load(model: StepModel, traffic: Traffic) -> LoadEstimate:
    """Predict the throughput when there is always a request waiting.

    Raises:
        ResourceError: not even one request fits into the cache.
    """
    running = max_running(model, traffic)
    return _steady(model, traffic, running, running)


def max_running(model: StepModel, traffic: Traffic) -> int:
    """Return how many sequences of one data-parallel group the cache holds.

    They are at all stages of their outputs, so the mean context counts, not the longest.
    """
    deployment = model.deployment
    length = traffic.num_prompt_tokens + traffic.num_output_tokens
    capacity = deployment.kv_capacity_tokens() // deployment.data
    if capacity < length:
        raise ResourceError(
            f"a request of {length} tokens does not fit into a cache of {capacity}",
            fix="use more devices, fewer bits, or shorter requests",
        )
    return min(capacity // traffic.mean_context, traffic.max_num_sequences)


def prompt_seconds(model: StepModel, traffic: Traffic, num_running: int) -> float:
    """Return what one prompt adds to the steps of ``num_running`` decoding sequences.

    In balance ``num_running / O`` prompts come per step; whole ones share it, so that they share
    what a step with prompts costs once.
    """
    decode = Segment(1, traffic.mean_context - 1, num_running)
    budget = max(1, traffic.max_tokens_per_step - num_running)
    together = max(1, round(num_running / traffic.num_output_tokens))
    together = min(together, max(1, budget // traffic.num_new_tokens))
    total, start = 0.0, traffic.num_cached_tokens
    while start < traffic.num_prompt_tokens:
        new = min(budget, traffic.num_prompt_tokens - start)
        total += _added(model, decode, Segment(new, start, together)) / together
        start += new
    return total


def _added(model: StepModel, decode: Segment, prompt: Segment) -> float:
    if decode.count == 0:
        return model.seconds(Work((prompt,), num_logits=prompt.count), graphs=False)
    mixed = Work((decode, prompt), num_logits=decode.count + prompt.count)
    alone = Work((decode,), num_logits=decode.count)
    return max(0.0, model.seconds(mixed, graphs=False) - model.seconds(alone))


def _steady(model: StepModel, traffic: Traffic, running: int, clients: int) -> LoadEstimate:
    constants, outputs = model.constants, traffic.num_output_tokens
    decode_s = model.seconds(Work.decode(running, traffic.mean_context))
    prompt_s = prompt_seconds(model, traffic, running - 1)
    turn_s = outputs * decode_s + running * prompt_s
    tpot_s = decode_s + constants.mixing_share * (running - 1) / outputs * prompt_s
    # A prompt that arrives alone meets the step in progress and, rarely, another prompt. Of those
    # that come in one burst, half are served before it, and those of its own step with it.
    busy = running * prompt_s / turn_s
    alone_s = decode_s / 2 + busy * prompt_s / 2
    budget = max(1, traffic.max_tokens_per_step - running)
    batch = min(running, max(1, budget // traffic.num_new_tokens))
    burst_s = ((running + batch) / 2 - 1) * prompt_s
    queue_s = (clients - running) * turn_s / running
    ttft_s = constants.request_s + prompt_s + queue_s
    share = constants.burst_share
    if traffic.prompts_first:
        spread_s = constants.length_spread * outputs * decode_s
        together = running * prompt_s / (running * prompt_s + spread_s)
        share = max(share, constants.lockstep_share * together)
    ttft_s += alone_s + share * burst_s
    rate = running / turn_s * model.deployment.data
    return LoadEstimate(
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        latency_s=ttft_s + (outputs - 1) * tpot_s,
        requests_per_s=rate,
        output_tokens_per_s=rate * outputs,
        num_running=running,
        decode_step_s=decode_s,
        prompt_s=prompt_s,
    )
