"""Pairs of features that do not work together are refused when the engine is built."""

from __future__ import annotations

import pytest

from tests.engine.features.support import FEATURES, config, core_of, tiny
from weft.core.errors import ConfigError, UnsupportedError
from weft.engine import features


def test_used_features_follow_the_config_and_the_model() -> None:
    dense, ring = tiny().spec, tiny("ring").spec
    assert features.used_features(config(enable_prefix_cache=False), dense) == set()
    both = config(overlap_depth=1, deterministic=True)
    assert features.used_features(both, dense) == {"cache", "overlap", "deterministic"}
    assert "rings" not in features.used_features(config(), ring)
    assert "rings" in features.used_features(config(enable_prefix_cache=False), ring)
    assert "states" in features.used_features(config(), tiny("rwkv").spec)


def test_a_refused_pair_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = features.Refusal("tests say so", "give one of them up")
    monkeypatch.setattr(features, "REFUSED", {("cache", "overlap"): refusal})
    with pytest.raises(UnsupportedError, match=r"cache and overlap .*: tests say so") as caught:
        core_of(config(overlap_depth=1))
    assert caught.value.fix == "give one of them up"
    core_of(config(overlap_depth=1, enable_prefix_cache=False))
    core_of(config())


def test_the_table_names_features_that_can_be_detected() -> None:
    for pair, refusal in features.REFUSED.items():
        assert set(pair) <= set(features.USED), pair
        assert refusal.reason
        assert refusal.fix
    assert len(FEATURES) == len(set(FEATURES))


def test_overlap_depth_is_zero_or_one() -> None:
    with pytest.raises(ConfigError, match="overlap_depth is 2"):
        config(overlap_depth=2)
