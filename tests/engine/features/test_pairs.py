"""Every pair of features: both at work at once, each request gets what it gets alone.

Pairs that a file of their own tests more closely are here as well; what is refused is tested to be
refused. ``docs/make_feature_pairs.py`` reads ``FEATURE_PAIRS``.
"""

from __future__ import annotations

from itertools import combinations

import pytest

from tests.engine.features.setups import (
    SETUPS,
    alone,
    asked_of,
    engine,
    kind_of,
    serve,
    settings_of,
)
from tests.engine.features.support import FEATURES, assert_same, core_of, tiny
from weft.core.errors import UnsupportedError
from weft.engine.features import REFUSED
from weft.ops.native.bindings import load_library

FEATURE_PAIRS = (
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
REFUSED_PAIRS = tuple(pair for pair in REFUSED if set(pair) <= set(FEATURES))
# As many as go together.
TOGETHER = (
    frozenset(FEATURES) - {"overlap", "states", "tensor_parallel"},
    frozenset(FEATURES) - {"speculation", "fork", "tensor_parallel"},
    frozenset(FEATURES) - {"speculation", "states", "adapters", "offload"},
)


def tolerance(features: frozenset[str]) -> float:
    """Return how far log-probabilities may be off: what is summed in another order is rounded."""
    if "deterministic" in features and "tensor_parallel" not in features:
        return 0.0
    return 1e-3 if "quantized_kv" in features else 1e-4  # a code may be the next one


def check(features: frozenset[str]) -> None:
    with engine(features) as core:
        run = serve(core, features)
        idle = [feature for feature in features if not SETUPS[feature].at_work(run)]
    assert not idle
    expected = alone(features)
    for answers in run.rounds:
        assert_same(answers, expected, abs=tolerance(features))


@pytest.mark.parametrize("pair", FEATURE_PAIRS, ids="-".join)
def test_both_at_work_give_what_each_request_gets_alone(pair):
    if set(pair) == {"deterministic", "quantized_kv"} and load_library() is None:
        pytest.skip("no C compiler")
    check(frozenset(pair))


@pytest.mark.skipif(load_library() is None, reason="no C compiler")
@pytest.mark.parametrize("features", TOGETHER, ids=["speculation", "states", "tensor_parallel"])
def test_all_at_work_at_once_give_what_each_request_gets_alone(features):
    check(features)


@pytest.mark.parametrize("feature", ["adapters", "grammar", "quantized_kv"])
def test_what_changes_answers_does(feature):
    features = frozenset((feature,))
    both = zip(alone(features), alone(frozenset()), strict=True)
    changed = [mine.logprobs != theirs.logprobs for mine, theirs in both]
    concerned = [
        feature == "quantized_kv" or bool(one.adapter) or one.sampling.structured is not None
        for one in asked_of(features)
    ]
    assert changed == concerned


@pytest.mark.parametrize(
    "feature",
    ["batching", "chunking", "cache", "preemption", "offload", "windows", "fork", "pause"],
)
def test_every_guess_of_a_model_that_is_the_target_holds(feature):
    """So its keys were there and right: found, copied, loaded or computed again with the target's.

    Penalties leave out guesses, so penalised requests have some that do not hold.
    """
    features = frozenset(("speculation", feature))
    asked = [one for one in asked_of(features) if not one.sampling.frequency_penalty]
    with engine(features) as core:
        run = serve(core, features, asked)
        assert SETUPS[feature].at_work(run)
        stats = core.stats().speculation
    assert stats is not None
    assert stats.num_accepted_tokens == stats.num_draft_tokens > 20
    assert core.runner.num_failed_proposals == 0


@pytest.mark.pair("states", "fork")
def test_samples_of_models_with_states_are_separate_requests():
    """States are not shared, so there is nothing to copy."""
    features = frozenset(("states", "fork"))
    with engine(features) as core:
        run = serve(core, features)
        assert not any(plan.blocks.copies for plan in run.plans)
    assert_same(run.rounds[0], alone(features), abs=1e-4)


@pytest.mark.parametrize("pair", REFUSED_PAIRS, ids="-".join)
def test_refused_pairs_are_refused_by_name(pair):
    features = frozenset(pair)
    with pytest.raises(UnsupportedError, match=f"{pair[0]} and {pair[1]} do not go together"):
        core_of(settings_of(features), tiny(kind_of(features)))


def test_every_pair_is_here_or_refused():
    named = [frozenset(pair) for pair in (*FEATURE_PAIRS, *REFUSED_PAIRS, ("states", "fork"))]
    assert len(set(named)) == len(named)
    assert set(named) == {frozenset(pair) for pair in combinations(FEATURES, 2)}
