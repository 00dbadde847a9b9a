"""Any interleaving of submit, step, abort, failure, deadline and new weights keeps every promise.

The driver asserts after each operation; see `driver.py` and `fake_runner.py` for what.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sched.driver import Driver
from weft.spec.request import FinishReason

NUM_DRIVERS = 50
NUM_OPERATIONS = 500


def test_random_operations_keep_every_invariant_and_leak_nothing():
    totals = Counter()
    for seed in range(NUM_DRIVERS):
        driver = Driver(seed)
        try:
            driver.run(NUM_OPERATIONS)
        except AssertionError as error:
            raise AssertionError(f"driver seed {seed}") from error
        counters = driver.scheduler.stats().counters
        totals.update(counters.num_finished)
        totals["preemptions"] += counters.num_preemptions
        totals["hits"] += counters.num_prefix_hit_tokens
        totals["refused"] += counters.num_refused
    # The traffic must have reached the states it is meant to test.
    for event in (*FinishReason, "preemptions", "hits", "refused"):
        assert totals[event] > 10, event


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_many_more_random_operations(seed):
    Driver(seed).run(10_000)
