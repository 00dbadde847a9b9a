"""Any interleaving of what users, weights, disks and failures do keeps every promise.

See `driver.py` for the operations and `fake_runner.py` for what is asserted.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sched.driver import Driver
from weft.spec.request import FinishReason

NUM_DRIVERS = 200
NUM_OPERATIONS = 500
EVENTS = (
    *FinishReason,
    *("preemptions", "hits", "refused", "broken steps", "copies"),
    *("guesses that held", "guesses that failed"),
    *("num_stored_blocks", "num_spilled_blocks", "num_fetched_blocks", "num_loaded_blocks"),
    *("num_host_hit_tokens", "num_disk_hit_tokens", "num_skipped_blocks", "num_lost"),
    *("num_saved", "num_restored", "num_skipped"),
)


def run(seed: int, num_operations: int, *, check_every: int) -> Counter[str]:
    driver = Driver(seed)
    try:
        driver.run(num_operations, check_every=check_every)
    except AssertionError as error:
        raise AssertionError(f"driver seed {seed}") from error
    return driver.events


def test_random_operations_keep_every_promise_and_leak_nothing():
    totals: Counter[str] = Counter()
    for seed in range(NUM_DRIVERS):
        totals += run(seed, NUM_OPERATIONS, check_every=10)
    # The traffic must have reached the states it is meant to test.
    for event in EVENTS:
        assert totals[event] > 10, event


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 2000))
def test_ten_million_random_operations(seed):
    run(seed, 10_000, check_every=20)
