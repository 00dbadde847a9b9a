from __future__ import annotations

import numpy as np
import pytest

from tests.align.support import group, sample
from weft.align.policy_batch import ScoredSample, pack, select
from weft.data.batch import IGNORE


def test_labels_are_the_drawn_tokens_at_the_position_before_them():
    (batch,) = pack([ScoredSample(sample(prompt=2, actions=2), 1.0)], 100)
    assert batch.packed.tokens_T.tolist() == [5, 6, 7, 8]
    assert batch.packed.labels_T.tolist() == [IGNORE, 7, 8, IGNORE]


def test_labels_never_reach_into_the_next_sample():
    first, second = sample(actions=1, first_token=10), sample(actions=1, first_token=20)
    (batch,) = pack([ScoredSample(first, 1.0), ScoredSample(second, -1.0)], 100)
    assert batch.packed.labels_T.tolist() == [IGNORE, 12, IGNORE, IGNORE, 22, IGNORE]
    assert batch.advantages_M.tolist() == [1.0, -1.0]
    assert batch.sample_M.tolist() == [0, 1]


def test_actions_line_up_with_labels_whatever_the_lengths():
    scored = [ScoredSample(sample(actions=n, first_token=10 * n), float(n)) for n in (3, 1, 2)]
    (batch,) = pack(scored, 100)
    assert batch.lengths == (3, 4, 5)
    assert batch.packed.num_targets == len(batch.behaviour_M) == 6
    np.testing.assert_array_equal(batch.advantages_M, [1, 2, 2, 3, 3, 3])
    np.testing.assert_allclose(batch.behaviour_M, [-0.5, -0.5, -0.6, -0.5, -0.6, -0.7])


def test_micro_batches_hold_every_sample_once_within_the_limit():
    scored = [ScoredSample(sample(actions=1 + i % 4), float(i)) for i in range(20)]
    batches = pack(scored, 12)
    assert all(len(batch.packed) <= 12 for batch in batches)
    assert sum(batch.num_samples for batch in batches) == 20


def test_a_sample_longer_than_the_limit_is_its_own_micro_batch():
    batches = pack([ScoredSample(sample(actions=n), 1.0) for n in (1, 30)], 8)
    assert [batch.lengths for batch in batches] == [(3,), (32,)]


def test_groups_without_a_signal_are_dropped_and_counted():
    chosen = select([group(1.0, 1.0), group(1.0, 0.0), group(0.0, 0.0)], "group_std")
    assert chosen.num_dropped_groups == 2
    assert sorted(s.advantage for s in chosen.samples) == pytest.approx([-0.7071, 0.7071], abs=1e-4)


def test_unscorable_samples_leave_their_group():
    chosen = select([group(1.0, None, 0.0), group(None, None)], "group_mean")
    assert [s.advantage for s in chosen.samples] == [0.5, -0.5]
    assert chosen.num_dropped_groups == 1


def test_batch_baseline_keeps_groups_that_agree():
    chosen = select([group(1.0, 1.0), group(0.0, 0.0)], "batch")
    assert chosen.num_dropped_groups == 0
    assert len(chosen.samples) == 4
