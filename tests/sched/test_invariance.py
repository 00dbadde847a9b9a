"""The same requests give the same tokens however they are scheduled."""

from __future__ import annotations

import dataclasses

import pytest

from tests.sched.fake_runner import FakeRunner
from weft.sched.config import SchedulerConfig
from weft.sched.loop import ServingLoop, VirtualClock
from weft.sched.scheduler import Scheduler
from weft.spec.request import Request
from weft.spec.sampling import SamplingParams

ROOMY = SchedulerConfig(num_blocks=1000, max_context=64, block_size=4, enable_prefix_cache=False)
REQUESTS = [
    Request(
        id=f"r{index}",
        tokens=(*range(12), *(index * 7 + i for i in range(index % 5 + 1))),
        sampling=SamplingParams(max_tokens=10 + index % 7, seed=index),
    )
    for index in range(12)
]


def serve(config: SchedulerConfig) -> tuple[dict[str, list[int]], Scheduler]:
    runner = FakeRunner(config, {request.id: request for request in REQUESTS})
    loop = ServingLoop(Scheduler(config), runner, VirtualClock())
    outputs: dict[str, list[int]] = {request.id: [] for request in REQUESTS}
    for request in REQUESTS:
        loop.submit(request)
    while loop.has_work:
        for update in loop.step():
            assert update.token is not None, loop.failure
            outputs[update.request_id].append(update.token)
    return outputs, loop.scheduler


@pytest.mark.parametrize(
    "changes",
    [
        {"max_num_sequences": 1},
        {"max_num_sequences": 4, "max_tokens_per_step": 4},
        {"long_prefill_threshold": 1},
        {"long_prefill_threshold": 5},
        {"enable_prefix_cache": True},
        {"block_size": 1, "enable_prefix_cache": True},
        {"num_blocks": 10, "enable_prefix_cache": False},
        {"num_blocks": 10, "enable_prefix_cache": True, "long_prefill_threshold": 3},
    ],
    ids=str,
)
def test_tokens_do_not_depend_on_how_they_are_scheduled(changes):
    expected, _ = serve(ROOMY)
    outputs, scheduler = serve(dataclasses.replace(ROOMY, **changes))
    assert outputs == expected
    assert ("num_blocks" in changes) == (scheduler.stats().counters.num_preemptions > 0)
