"""Requests served together get what each gets alone."""

from __future__ import annotations

import pytest

from tests.engine.features.support import (
    GREEDY,
    KINDS,
    PENALISED,
    SEEDED,
    assert_same,
    completions,
    config,
    requests,
    tiny,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.pair("batching", "states")
@pytest.mark.pair("batching", "windows")
def test_a_batch_gives_what_each_request_gives_alone(kind):
    decoder = tiny(kind)
    wanted = requests([GREEDY, SEEDED, PENALISED] * 2)
    settings = config(enable_prefix_cache=kind != "ring")
    alone = [completions(settings, [request], decoder=decoder)[0] for request in wanted]
    together = completions(settings, wanted, decoder=decoder)
    assert_same(together, alone, abs=1e-4)
    late = completions(settings, wanted, decoder=decoder, stagger=2)
    assert_same(late, alone, abs=1e-4)
