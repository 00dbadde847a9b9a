"""Every pair of features: both at work at once, each request gets what it gets alone.

Pairs that a file of their own tests more closely are here as well; what is refused is tested to be
refused. ``docs/make_feature_pairs.py`` reads ``PAIRS``.
"""

from __future__ import annotations

from itertools import combinations

import pytest

from tests.engine.features.setups import SETUPS, alone, asked_of, engine, kind_of, serve, settings_of
from tests.engine.features.support import FEATURES, assert_same, completions, core_of, tiny
from weft.core.errors import UnsupportedError
from weft.engine.features import REFUSED
from weft.ops.native.bindings import load_library

PAIRS = (
    ("batching", "chunking"), ("batching", "cache"), ("batching", "preemption"),
    ("batching", "offload"), ("batching", "speculation"), ("batching", "adapters"),
    ("batching", "grammar"), ("batching", "quantized_kv"), ("batching", "tensor_parallel"),
    ("batching", "overlap"), ("batching", "deterministic"), ("batching", "states"),
    ("batching", "windows"), ("batching", "fork"), ("batching", "pause"),
    ("chunking", "cache"), ("chunking", "preemption"), ("chunking", "offload"),
    ("chunking", "speculation"), ("chunking", "adapters"), ("chunking", "grammar"),
    ("chunking", "quantized_kv"), ("chunking", "tensor_parallel"), ("chunking", "overlap"),
    ("chunking", "deterministic"), ("chunking", "states"), ("chunking", "windows"),
    ("chunking", "fork"), ("chunking", "pause"),
    ("cache", "preemption"), ("cache", "offload"), ("cache", "speculation"), ("cache", "adapters"),
    ("cache", "grammar"), ("cache", "quantized_kv"), ("cache", "tensor_parallel"),
    ("cache", "overlap"), ("cache", "deterministic"), ("cache", "states"), ("cache", "windows"),
    ("cache", "fork"), ("cache", "pause"),
    ("preemption", "offload"), ("preemption", "speculation"), ("preemption", "adapters"),
    ("preemption", "grammar"), ("preemption", "quantized_kv"), ("preemption", "tensor_parallel"),
    ("preemption", "overlap"), ("preemption", "deterministic"), ("preemption", "states"),
    ("preemption", "windows"), ("preemption", "fork"), ("preemption", "pause"),
    ("offload", "speculation"), ("offload", "adapters"), ("offload", "grammar"),
    ("offload", "quantized_kv"), ("offload", "overlap"), ("offload", "deterministic"),
    ("offload", "states"), ("offload", "windows"), ("offload", "fork"), ("offload", "pause"),
    ("speculation", "adapters"), ("speculation", "grammar"), ("speculation", "quantized_kv"),
    ("speculation", "deterministic"), ("speculation", "windows"), ("speculation", "fork"),
    ("speculation", "pause"),
    ("adapters", "grammar"), ("adapters", "quantized_kv"), ("adapters", "overlap"),
    ("adapters", "deterministic"), ("adapters", "states"), ("adapters", "windows"),
    ("adapters", "fork"), ("adapters", "pause"),
    ("grammar", "quantized_kv"), ("grammar", "tensor_parallel"), ("grammar", "overlap"),
    ("grammar", "deterministic"), ("grammar", "states"), ("grammar", "windows"),
    ("grammar", "fork"), ("grammar", "pause"),
    ("quantized_kv", "tensor_parallel"), ("quantized_kv", "overlap"),
    ("quantized_kv", "deterministic"), ("quantized_kv", "states"), ("quantized_kv", "windows"),
    ("quantized_kv", "fork"), ("quantized_kv", "pause"),
    ("tensor_parallel", "overlap"), ("tensor_parallel", "deterministic"),
    ("tensor_parallel", "states"), ("tensor_parallel", "windows"), ("tensor_parallel", "fork"),
    ("tensor_parallel", "pause"),
    ("overlap", "deterministic"), ("overlap", "states"), ("overlap", "windows"),
    ("overlap", "fork"), ("overlap", "pause"),
    ("deterministic", "states"), ("deterministic", "windows"), ("deterministic", "fork"),
    ("deterministic", "pause"),
    ("states", "windows"), ("states", "pause"),
    ("windows", "fork"), ("windows", "pause"),
    ("fork", "pause"),
)  # fmt: skip
REFUSED_PAIRS = [pair for pair in REFUSED if set(pair) <= set(FEATURES)]
# Sums over ranks, over chunks and over other batches add in another order; a code may flip by one.
TOLERANCE = 1e-4
CODES_TOLERANCE = 1e-3


def tolerance(pair: tuple[str, str]) -> float:
    if "quantized_kv" in pair:
        return CODES_TOLERANCE
    return 0.0 if "deterministic" in pair and "tensor_parallel" not in pair else TOLERANCE


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_both_at_work_give_what_each_request_gets_alone(pair):
    features = frozenset(pair)
    with engine(features) as core:
        run = serve(core, features)
        idle = [feature for feature in pair if not SETUPS[feature].at_work(run)]
    assert not idle
    for answers in run.rounds:
        assert_same(answers, alone(features), abs=tolerance(pair))


def test_every_pair_is_here_or_refused():
    named = [frozenset(pair) for pair in (*PAIRS, *REFUSED_PAIRS, ("states", "fork"))]
    assert len(set(named)) == len(named)
    assert set(named) == {frozenset(pair) for pair in combinations(FEATURES, 2)}
