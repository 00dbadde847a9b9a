"""What drafting gains: tokens per target step and the speed-up (Leviathan et al. 2023).

With acceptance rate α per token and γ drafted tokens a step yields (1 − α^{γ+1})/(1 − α) tokens
(arXiv:2211.17192, equation 1). Checking γ + 1 tokens is free only while decode is bound by memory,
so ``speed_up`` takes the target's times at one and at γ + 1 tokens per sequence.
"""

from __future__ import annotations

import random

from weft.core.errors import ConfigError


def expected_tokens(acceptance: float, num_drafted: int) -> float:
    """Return the mean tokens of one target step.

    >>> round(expected_tokens(0.7, 3), 3)
    2.533

    Raises:
        ConfigError: an acceptance outside [0, 1] or a negative number of drafts.
    """
    if not 0.0 <= acceptance <= 1.0 or num_drafted < 0:
        raise ConfigError(
            f"acceptance {acceptance}, {num_drafted} drafted tokens",
            fix="give an acceptance in [0, 1] and at least 0 tokens",
        )
    if acceptance == 1.0:
        return float(num_drafted + 1)
    return (1.0 - acceptance ** (num_drafted + 1)) / (1.0 - acceptance)


def draft_speed_up(acceptance: float, num_drafted: int, draft_cost: float) -> float:
    """Return the speed-up when checking is free; a draft step costs ``draft_cost`` target steps.

    >>> round(draft_speed_up(0.8, 4, 0.05), 4)
    2.8013
    """
    return expected_tokens(acceptance, num_drafted) / (num_drafted * draft_cost + 1.0)


def speed_up(
    acceptance: float, num_drafted: int, *, draft_s: float, target_s: float, check_s: float
) -> float:
    """Return the speed-up from measured or predicted times.

    Args:
        acceptance: Chance that a drafted token is kept.
        num_drafted: Tokens drafted per step.
        draft_s: One draft step.
        target_s: A target step without drafts.
        check_s: A target step on ``num_drafted + 1`` tokens per sequence.
    """
    tokens = expected_tokens(acceptance, num_drafted)
    return tokens * target_s / (num_drafted * draft_s + check_s)


def best_num_drafted(acceptance: float, draft_cost: float, *, most: int = 16) -> int:
    """Return the number of drafts with the largest speed-up; 0 means do not draft."""
    return max(range(most + 1), key=lambda count: draft_speed_up(acceptance, count, draft_cost))


def simulate_tokens(acceptance: float, num_drafted: int, *, num_steps: int, seed: int) -> float:
    """Return the mean tokens per step of a Monte-Carlo run."""
    generator = random.Random(seed)
    total = 0
    for _ in range(num_steps):
        kept = 0
        while kept < num_drafted and generator.random() < acceptance:
            kept += 1
        total += kept + 1
    return total / num_steps
