"""One batch from start to end: all prompts at once, then one token each per step."""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import ConfigError
from weft.plan.inference.step import StepModel
from weft.plan.work import Work


@dataclass(frozen=True)
class StaticEstimate:
    """One batch on one deployment.

    Attributes:
        prefill_s: All prompts and their first tokens.
        decode_step_s: One further token of each sequence, mean over the output.
        duration_s: Everything.
        output_tokens_per_s: Generated tokens over the duration, all devices together.
    """

    prefill_s: float
    decode_step_s: float
    duration_s: float
    output_tokens_per_s: float


def estimate_static(
    model: StepModel, *, batch: int, num_prompt_tokens: int, num_output_tokens: int
) -> StaticEstimate:
    """Predict a batch that is served alone.

    A decode step's time is linear in the context, so the middle of the output stands for all of it.

    Args:
        model: The deployment.
        batch: Sequences, over all data-parallel groups.
        num_prompt_tokens: Of each.
        num_output_tokens: Of each.

    Raises:
        ResourceError: the weights do not fit.
    """
    model.deployment.cache_bytes()
    if min(batch, num_prompt_tokens, num_output_tokens) < 1:
        raise ConfigError(
            f"a batch of {batch} with {num_prompt_tokens} + {num_output_tokens} tokens",
            fix="use at least 1 of each",
        )
    local = -(-batch // model.deployment.data)
    prefill_s = model.seconds(Work.prefill(local, num_prompt_tokens), graphs=False)
    middle = num_prompt_tokens + (num_output_tokens + 1) // 2
    decode_s = model.seconds(Work.decode(local, middle))
    duration_s = prefill_s + (num_output_tokens - 1) * decode_s
    return StaticEstimate(prefill_s, decode_s, duration_s, batch * num_output_tokens / duration_s)
