"""How many guesses of each sequence are worth verifying: confidence-scheduled verification.

A drafter that knows the confidence c_i of its guesses knows with which probability the first j of
them hold, a_j = c_1 ... c_j. Verifying one more guess adds a_j to the tokens of the step and one
row to its batch, which makes the step slower. The lengths that make tokens times steps per second
largest are chosen over all sequences together, most probable guess first (DSpark).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import mul

StepsPerSecond = Callable[[int], float]


def survival(confidences: Sequence[float]) -> list[float]:
    """Return the probability that the first j guesses hold, for each j from 1."""
    return list(accumulate(confidences, mul))


def throughputs(confidences: Sequence[float], steps_per_s: StepsPerSecond) -> list[float]:
    """Return tokens per second of one sequence that verifies 0, 1, 2 ... guesses."""
    tokens = accumulate(survival(confidences), initial=1.0)
    return [num * steps_per_s(1 + length) for length, num in enumerate(tokens)]


def verify_lengths(
    confidences: Sequence[Sequence[float]], steps_per_s: StepsPerSecond
) -> list[int]:
    """Return how many guesses of each sequence to verify.

    Stops at the first guess that does not raise tokens per second: probabilities only fall, and a
    larger batch is never faster.

    Args:
        confidences: For each sequence the estimated probability of each guess given those before.
        steps_per_s: Steps per second of a batch of so many rows.
    """
    lengths = [0] * len(confidences)
    by_sequence = [survival(one) for one in confidences]
    open_guesses = [(-one[0], index) for index, one in enumerate(by_sequence) if one]
    heapq.heapify(open_guesses)
    num_rows = len(confidences)
    tokens = float(num_rows)
    best = tokens * steps_per_s(num_rows) if num_rows else 0.0
    while open_guesses:
        negative, index = heapq.heappop(open_guesses)
        num_rows, tokens = num_rows + 1, tokens - negative
        rate = tokens * steps_per_s(num_rows)
        if rate <= best:
            break
        best = rate
        lengths[index] += 1
        if lengths[index] < len(by_sequence[index]):
            heapq.heappush(open_guesses, (-by_sequence[index][lengths[index]], index))
    return lengths
