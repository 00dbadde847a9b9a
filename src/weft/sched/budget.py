"""How many tokens a step computes: the configured budget, or what a time per token leaves.

Outputs come out once per step, so a step with outputs must not take longer than the time per
output token that was promised (stall-free batching: Agrawal et al. 2024, Sarathi-Serve,
arXiv:2403.02310). With a model of the step's time that says how large chunks of prompts may be.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from weft.core.errors import ConfigError
from weft.sched.sequence import Sequence


@dataclass(frozen=True)
class StepTime:
    """What a step takes: a base, a price per computed token and one per token attended to.

    Attributes:
        base_s: Of every step: reading the weights, launching kernels, scheduling.
        per_token_s: For each token a step computes.
        per_context_token_s: For each token in the contexts of a step's sequences, computed ones
            included.
    """

    base_s: float
    per_token_s: float = 0.0
    per_context_token_s: float = 0.0

    def __post_init__(self) -> None:
        if self.base_s <= 0.0 or min(self.per_token_s, self.per_context_token_s) < 0.0:
            raise ConfigError(
                f"{self}: a step takes time, and a token cannot take less than none",
                fix="give base_s above 0 and prices of at least 0",
            )

    def step_s(self, num_tokens: int, num_context_tokens: int) -> float:
        """Return the seconds of a step."""
        context_s = self.per_context_token_s * num_context_tokens
        return self.base_s + self.per_token_s * num_tokens + context_s

    def num_tokens(self, step_s: float, num_earlier_tokens: int, most: int) -> int:
        """Return how many tokens, up to `most`, a step of `step_s` seconds can compute.

        Negative if there is not even time for the `num_earlier_tokens` in the contexts before.

        >>> StepTime(0.01, per_token_s=1e-4).num_tokens(0.05, 0, most=2048)
        400
        """
        left_s = step_s - self.step_s(0, num_earlier_tokens)
        price_s = self.per_token_s + self.per_context_token_s
        if left_s > price_s * most:
            return most
        # Seconds as floats: a thousandth of a token is rounding, not time.
        return int(left_s / price_s + 1e-3) if price_s else -1


def step_budget(
    running: Iterable[Sequence], max_tokens: int, step_time: StepTime, tpot_target_s: float
) -> int:
    """Return the most tokens of the next step, so that outputs keep their pace.

    Every output gets its token and prompts at least one, however tight the target is. A step
    without outputs has nobody to keep waiting and gets all of `max_tokens`.
    """
    num_outputs = num_context_tokens = 0
    for sequence in running:
        num_context_tokens += sequence.num_planned
        num_outputs += len(sequence.tokens) + sequence.num_pending - sequence.num_planned == 1
    if num_outputs == 0:
        return max_tokens
    num_tokens = step_time.num_tokens(tpot_target_s, num_context_tokens, max_tokens)
    return min(max(num_tokens, num_outputs + 1), max_tokens)
