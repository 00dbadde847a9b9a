"""A deployment under load: clients in a closed loop, and the most it delivers.

Steady state of continuous batching. ``r`` sequences run; while one produces its ``O`` tokens, the
prompts of the ``r − 1`` others pass through the same steps, each lengthening them by what its
tokens cost beside the decoding ones (weights are read once for both):

    T     = O · t_decode(r) + r · t_prompt          one turn over all sequences
    TPOT  = t_decode(r) + (r − 1) / O · t_prompt
    rate  = r / T

``r`` is the number of clients unless the cache holds fewer; the rest wait in line.

A request's first token waits for the step in progress, for those prepared behind it, for prompts
that came at the same time, and for its own. All clients' first requests come at once. Later ones
come as answers end: together if all outputs are equally long, apart if lengths spread that over
more time than the prompts take.
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
        prompts_together: Answers that end in one step reach their clients together, whose next
            prompts so share a step (TensorRT-LLM); else one by one.
        num_steps_ahead: Steps already prepared when a request arrives; servers prepare one while
            the one before it runs.
        requests_per_client: Of a run; ten in public benchmarks. The first of all come at once.
    """

    num_prompt_tokens: int
    num_output_tokens: int
    num_cached_tokens: int = 0
    max_tokens_per_step: int = 8192
    max_num_sequences: int = 2048
    prompts_first: bool = False
    prompts_together: bool = False
    num_steps_ahead: int = 1
    requests_per_client: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.num_cached_tokens < self.num_prompt_tokens or self.num_output_tokens < 1:
            raise ConfigError(
                f"{self} is no traffic",
                fix="compute at least one prompt token and generate at least one",
            )
        if self.num_steps_ahead < 0 or self.requests_per_client < 1:
            raise ConfigError(
                f"{self.num_steps_ahead} steps ahead, {self.requests_per_client} requests each",
                fix="prepare no fewer than 0 steps, and let each client ask at least once",
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
    together = max(1, round(num_running / traffic.num_output_tokens))
    together = min(together, _most_together(traffic, num_running))
    return _prompts_seconds(model, traffic, num_running, together) / together


def _budget(traffic: Traffic, num_running: int) -> int:
    """Return the prompt tokens of a step, beside ``num_running`` sequences if they may decode."""
    return max(1, traffic.max_tokens_per_step - (0 if traffic.prompts_first else num_running))


def _most_together(traffic: Traffic, num_running: int) -> int:
    return max(1, _budget(traffic, num_running) // traffic.num_new_tokens)


def _prompts_seconds(
    model: StepModel, traffic: Traffic, num_running: int, num_prompts: int
) -> float:
    """Return what prompts that share their steps add to those of ``num_running`` sequences."""
    decode = Segment(1, traffic.mean_context - 1, 0 if traffic.prompts_first else num_running)
    budget = _budget(traffic, num_running)
    total, start = 0.0, traffic.num_cached_tokens
    while start < traffic.num_prompt_tokens:
        new = min(budget, traffic.num_prompt_tokens - start)
        total += _added(model, decode, Segment(new, start, num_prompts))
        start += new
    return total


def _added(model: StepModel, decode: Segment, prompt: Segment) -> float:
    if decode.count == 0:
        return model.seconds(Work((prompt,), num_logits=prompt.count), graphs=False)
    mixed = Work((decode, prompt), num_logits=decode.count + prompt.count)
    alone = Work((decode,), num_logits=decode.count)
    return max(0.0, model.seconds(mixed, graphs=False) - model.seconds(alone))


@dataclass(frozen=True)
class _Prefill:
    """Prompts in a steady state, in seconds.

    Attributes:
        alone_s: What one that comes by itself adds to steps.
        batch_s: What as many as fit into one step add to it.
        all_s: The prompts of all running sequences, in such batches.
        together: Share of prompts that come at once, as answers ended at once.
    """

    alone_s: float
    batch_s: float
    all_s: float
    together: float

    @property
    def burst_s(self) -> float:
        """Mean time to a first token when all come at once: batches one after another."""
        return (self.all_s + self.batch_s) / 2

    def mean(self, alone: float, together: float) -> float:
        """Return the mean over prompts that come alone and those that come together."""
        return (1.0 - self.together) * alone + self.together * together


def _prefill(model: StepModel, traffic: Traffic, running: int, answer_s: float) -> _Prefill:
    alone_s = prompt_seconds(model, traffic, running - 1)
    batch = min(running, _most_together(traffic, running))
    batch_s = _prompts_seconds(model, traffic, running - batch, batch)
    all_s = running / batch * batch_s
    spread_s = model.constants.length_spread * answer_s
    gathers = traffic.prompts_first or traffic.prompts_together
    return _Prefill(alone_s, batch_s, all_s, all_s / (all_s + spread_s) if gathers else 0.0)


def _steady(model: StepModel, traffic: Traffic, running: int, clients: int) -> LoadEstimate:
    constants, outputs = model.constants, traffic.num_output_tokens
    decode_s = model.seconds(Work.decode(running, traffic.mean_context))
    prefill = _prefill(model.under_load(), traffic, running, outputs * decode_s)
    prompt_s = prefill.mean(prefill.alone_s, prefill.all_s / running)
    turn_s = outputs * decode_s + running * prompt_s
    others_s = prefill.all_s - prefill.batch_s
    if traffic.prompts_first:  # the first batch waits for all others, the last for none
        others_s /= 2
    mixing_s = prefill.mean((running - 1) * prefill.alone_s, others_s)
    tpot_s = decode_s + constants.mixing_share * mixing_s / outputs
    queue_s = (clients - running) * turn_s / running
    ttft_s = constants.request_s + queue_s
    if not model.compiled:
        prefill = _prefill(model, traffic, running, outputs * decode_s)
    if running == 1:
        ttft_s += prefill.alone_s
    else:
        ttft_s += _first_token(traffic, prefill, running, decode_s, turn_s)
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


def _first_token(
    traffic: Traffic, prefill: _Prefill, running: int, decode_s: float, turn_s: float
) -> float:
    """Return the mean seconds from a request's arrival at a busy scheduler to its first token."""
    step_s = turn_s / traffic.num_output_tokens
    ahead_s = traffic.num_steps_ahead * step_s
    # One alone meets a step in progress, which now and then holds a prompt; then those prepared.
    busy = 1.0 - decode_s / step_s
    alone_s = (decode_s + busy * prefill.alone_s) / 2 + ahead_s + prefill.alone_s
    if traffic.prompts_first:  # all answers have ended, so nothing is left to wait for
        later_s = prefill.mean(alone_s, prefill.burst_s)
    else:
        num_steps = -(-traffic.num_new_tokens // _budget(traffic, running))
        later_s = prefill.mean(alone_s, ahead_s + prefill.batch_s) + num_steps * decode_s
    first = 1.0 / traffic.requests_per_client
    return first * prefill.burst_s + (1.0 - first) * later_s
