from __future__ import annotations

import pytest

from tests.align.support import group, sample
from weft.align.types import Sample
from weft.core.errors import DataError
from weft.spec.request import FinishReason


def test_completion_becomes_one_entry_per_token():
    built = sample(prompt=3, actions=2)
    assert built.loss_mask == (False, False, False, True, True)
    assert built.behaviour_log_probs == (0.0, 0.0, 0.0, -0.5, -0.6)
    assert built.weight_versions == (-1, -1, -1, 0, 0)
    assert (len(built), built.num_actions) == (5, 2)


def test_group_rewards_leave_out_the_unscorable():
    assert group(1.0, None, 0.0).rewards == [1.0, 0.0]


@pytest.mark.parametrize("mask", [(False,), (True, False), (False, True, True)])
def test_parts_that_do_not_fit_are_refused(mask):
    with pytest.raises(DataError):
        Sample((1, 2), mask, (0.0, -1.0), (-1, 0), FinishReason.STOP)
