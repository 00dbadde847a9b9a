from __future__ import annotations

from weft.align.health import HealthConfig, HealthMonitor


def run(pairs, patience=3):
    monitor = HealthMonitor(HealthConfig(patience_steps=patience))
    return [monitor.update(reward=r, entropy=e) for r, e in pairs]


def test_reward_of_zero_must_last_without_a_break():
    assert run([(0, 1), (0, 1), (0.1, 1), (0, 1), (0, 1)]) == [None] * 5
    assert "reward was 0 for 3 steps" in run([(0, 1)] * 3)[-1]


def test_lost_entropy_is_a_collapse_only_while_the_policy_is_bad():
    assert "entropy" in run([(0.2, 1e-5)] * 3)[-1]
    assert run([(0.99, 1e-5)] * 3)[-1] is None


def test_twenty_steps_are_the_default():
    monitor = HealthMonitor()
    found = [monitor.update(reward=0.0, entropy=1.0) for _ in range(20)]
    assert found[:19] == [None] * 19
    assert found[19] is not None
