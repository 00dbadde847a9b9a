"""When synthetic requests arrive, and what they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import ConfigError
from weft.plan.workload.arrival import Arrival
from weft.plan.workload.lengths import FixedLength, Lengths, zipf_weights


@dataclass(frozen=True)
class Content:
    """How long requests are and which beginning they share.

    A group stands for a system prompt or a tool description. Popular groups have low numbers.

    Attributes:
        prompt: Lengths of prompts, shared beginning included; none is shorter than that.
        output: Lengths of outputs.
        num_shared_tokens: Length of every group's beginning.
        num_groups: How many different beginnings there are.
        group_skew: Group g is used in proportion to (g + 1) ** -group_skew.
    """

    prompt: Lengths
    output: Lengths
    num_shared_tokens: int = 0
    num_groups: int = 1
    group_skew: float = 0.0

    def __post_init__(self) -> None:
        if self.num_shared_tokens < 0 or self.num_groups < 1:
            raise ConfigError(
                f"{self.num_groups} groups share {self.num_shared_tokens} tokens",
                fix="give num_groups of at least 1 and num_shared_tokens of at least 0",
            )

    def at(self, times_s: NDArray[np.float64], rng: np.random.Generator) -> tuple[Arrival, ...]:
        """Draw one request per arrival time."""
        num = len(times_s)
        prompts = np.maximum(self.prompt.sample(rng, num), self.num_shared_tokens)
        outputs = self.output.sample(rng, num)
        weights = zipf_weights(self.num_groups, self.group_skew)
        groups = rng.choice(self.num_groups, size=num, p=weights)
        return tuple(
            Arrival(time_s, prompt, output, self.num_shared_tokens, group)
            for time_s, prompt, output, group in zip(
                times_s.tolist(), prompts.tolist(), outputs.tolist(), groups.tolist(), strict=True
            )
        )


def fixed_content(num_prompt_tokens: int, num_output_tokens: int) -> Content:
    """Return content of one prompt length and one output length."""
    return Content(FixedLength(num_prompt_tokens), FixedLength(num_output_tokens))


def poisson_arrivals(
    content: Content, *, num_requests: int, rate_per_s: float, seed: int = 0
) -> tuple[Arrival, ...]:
    """Draw arrivals that know nothing of each other: exponential gaps."""
    return gamma_arrivals(
        content, num_requests=num_requests, rate_per_s=rate_per_s, variation=1.0, seed=seed
    )


def gamma_arrivals(
    content: Content, *, num_requests: int, rate_per_s: float, variation: float, seed: int = 0
) -> tuple[Arrival, ...]:
    """Draw arrivals with Gamma-distributed gaps.

    Args:
        content: Lengths and shared beginnings.
        num_requests: How many.
        rate_per_s: Mean arrivals per second.
        variation: Standard deviation of a gap over its mean: 0 regular, 1 Poisson, above bursty.
        seed: Of the draws.
    """
    if num_requests < 1 or rate_per_s <= 0.0 or variation < 0.0:
        raise ConfigError(
            f"{num_requests} requests at {rate_per_s}/s with variation {variation}",
            fix="give at least one request, a rate above 0 and a variation of at least 0",
        )
    rng = np.random.default_rng(seed)
    if variation == 0.0:
        gaps = np.full(num_requests, 1.0 / rate_per_s)
    else:
        shape = variation**-2
        gaps = rng.gamma(shape, 1.0 / (rate_per_s * shape), size=num_requests)
    return content.at(np.cumsum(gaps), rng)


def simultaneous_arrivals(
    content: Content, *, num_requests: int, seed: int = 0
) -> tuple[Arrival, ...]:
    """Draw requests that are all there from the start, as offline batches are."""
    return content.at(np.zeros(num_requests), np.random.default_rng(seed))
