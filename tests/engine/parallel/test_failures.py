"""What happens to requests, engine and ranks when one rank fails; ranks are threads here."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from tests.engine.features.support import config, requests, tiny
from tests.engine.parallel.support import threaded_core
from weft.core.errors import UnsupportedError
from weft.engine.parallel.lockstep import Lockstep
from weft.engine.parallel.ranks import RankError
from weft.nn.context import StepContext
from weft.spec import FinishReason


def serve(core) -> dict[str, tuple[FinishReason, str | None]]:
    """Serve the usual requests to whatever end; no step may raise or hang."""
    ends = {}
    for request in requests():
        core.submit(request)
    while core.has_work:
        for delta in core.step():
            if delta.finish_reason is not None:
                ends[delta.request_id] = (delta.finish_reason, delta.error)
    return ends


def raising(method: str, error: Exception, *, after: int = 2):
    """Return a ``spoil`` that lets rank 1's module raise after some steps."""

    def spoil(core, rank):
        original, calls = getattr(core.model, method), []

        def spoilt(*args):
            calls.append(args)
            if len(calls) > after:
                raise error
            return original(*args)

        if rank == 1:
            setattr(core.model, method, spoilt)

    return spoil


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("overlap_depth", [0, 1])
def test_a_rank_that_raises_ends_the_requests_of_its_step_with_its_reason(size, overlap_depth):
    spoil = raising("forward", RuntimeError("out of memory\nof all kinds"))
    settings = config(overlap_depth=overlap_depth)
    with threaded_core(tiny(), settings, size, spoil=spoil) as core:
        ends = serve(core)
        assert len(ends) == 6
        assert {reason for reason, _ in ends.values()} == {FinishReason.ERROR}
        for _, error in ends.values():
            assert "rank 1 raised RuntimeError: out of memory" in error
        assert isinstance(core.broken, RankError)
        assert core.broken.rank == 1
        assert serve(core).keys() == ends.keys()  # and they fail at once
        assert core.stats().scheduler.num_used_blocks == 0


def test_a_rank_that_draws_other_tokens_is_found_out():
    def spoil(core, rank):
        original = core.runner.execute

        def execute(plan):
            result = original(plan)
            if plan.step == 3:
                id, drawn = next(iter(result.tokens.items()))
                result.tokens[id] = (drawn[0]._replace(token=drawn[0].token ^ 1),)
            return result

        core.runner.execute = execute

    with threaded_core(tiny(), config(), spoil=spoil) as core:
        ends = serve(core)
        assert core.broken.rank == 1
        assert all("rank 1 has drawn other tokens in step 3" in error for _, error in ends.values())


def test_a_rank_that_is_silent_is_given_up_after_the_timeout():
    release = threading.Event()

    def spoil(core, rank):
        original = core.runner.execute

        def execute(plan):
            result = original(plan)
            if plan.step == 2:
                release.wait(20)
            return result

        core.runner.execute = execute

    with threaded_core(tiny(), config(), spoil=spoil, timeout_s=0.3) as core:
        ends = serve(core)
        release.set()
        assert all("rank 1 did not answer within 0.3 s" in error for _, error in ends.values())


def test_rank_0_that_raises_is_named_too():
    with threaded_core(tiny(), config()) as core:
        raising("forward", ValueError("bad weights"))(core, 1)
        ends = serve(core)
        assert core.broken.rank == 0
        assert all("rank 0 raised ValueError: bad weights" in error for _, error in ends.values())


def test_an_idle_rank_that_is_gone_is_noticed_between_steps():
    with threaded_core(tiny(), config()) as core:
        assert len(serve(core)) == 6
        core.ranks._state.channels[1]._socket.shutdown(2)
        end_s = time.monotonic() + 10
        while core.broken is None and time.monotonic() < end_s:
            time.sleep(0.01)
        assert "rank 1 died" in str(core.broken)


def test_a_failed_collective_is_not_forgotten_by_whoever_makes_do_without():
    """Sampling tries rows one by one when all together fail; the ranks are out of step then."""

    def spoil(core, rank):
        raising("unembed", RuntimeError("no head"), after=1)(core, rank)

    with threaded_core(tiny(), config(), spoil=spoil, timeout_s=1.0) as core:
        ends = serve(core)
        assert core.broken is not None
        assert {reason for reason, _ in ends.values()} == {FinishReason.ERROR}


def test_closing_is_idempotent_and_refuses_further_steps():
    with threaded_core(tiny(), config()) as core:
        core.close()
        core.close()
        ends = serve(core)
        assert {reason for reason, _ in ends.values()} == {FinishReason.ERROR}
        assert all("this engine is closed" in error for _, error in ends.values())


def test_a_part_of_a_model_is_not_called_outside_of_a_step():
    with threaded_core(tiny(), config()) as core:
        with pytest.raises(UnsupportedError, match="compute together only in the steps"):
            core.model(torch.tensor([1, 2]), StepContext.packed([2]))
        assert len(serve(core)) == 6


def test_collectives_belong_to_the_thread_of_the_step():
    class Alone:
        size, rank = 1, 0

        def all_reduce(self, tensor):
            return tensor

    group, refused = Lockstep(Alone()), []

    def other():
        try:
            group.all_reduce(torch.zeros(1))
        except UnsupportedError as error:
            refused.append(error)

    with group.in_step():
        assert group.all_reduce(torch.ones(1)).item() == 1
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
