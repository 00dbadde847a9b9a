from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.align.twin import policy_loss_twin
from weft.align.objective import DAPO, DR_GRPO, GRPO, GSPO, PRESETS, REINFORCE, RLOO
from weft.align.policy_loss import PolicyLossConfig, policy_loss
from weft.core.errors import ConfigError

LOG = math.log


def evaluate(new, old, advantages, config, **options):
    """Run the loss on nested lists; one inner list per sample."""
    sample_M = torch.tensor([i for i, tokens in enumerate(new) for _ in tokens])
    flat = lambda nested: torch.tensor([x for part in nested for x in part], dtype=torch.float64)  # noqa: E731
    new_M = flat(new).requires_grad_()
    advantages_M = torch.tensor(advantages, dtype=torch.float64)[sample_M]
    weights = options.pop("weights", None)
    result = policy_loss(
        new_M, flat(old), advantages_M, sample_M, len(new), config,
        weights_M=None if weights is None else flat(weights), **options,
    )  # fmt: skip
    (gradient_M,) = torch.autograd.grad(result.loss_sum, new_M)
    return result, gradient_M


# Four tokens: sample 0 has three with ratios 1, 3/2, 1/2, sample 1 has one with ratio 2.
OLD = [[-1.0, -1.0, -1.0], [-2.0]]
NEW = [[-1.0, -1.0 + LOG(1.5), -1.0 + LOG(0.5)], [-2.0 + LOG(2.0)]]
# The first sample is good, the second bad.
ADVANTAGES = [1.0, -1.0]

# Per token, clip 0.2 / 0.2: good: 1, min(1.5, 1.2) = 1.2, min(0.5, 0.8) = 0.5;
# bad with ratio 2: min(-2, -1.2) = -2. The loss is minus these.
GOLDEN = {
    "grpo": (-(1 + 1.2 + 0.5) / 3 + 2, 2),  # mean of each sample, then over 2 samples
    "dr_grpo": (-(1 + 1.2 + 0.5) + 2, 2 * 8),  # 2 samples of fixed length 8
    "dapo": (-(1 + 1.28 + 0.5) + 2, 4),  # clip 0.2 / 0.28, over 4 tokens
    # Geometric mean of sample 0: (1 * 1.5 * 0.5)^(1/3) = 0.9086, below 1 - 3e-4: min keeps it.
    "gspo": (-(0.75 ** (1 / 3)) + 2, 2),
    "rloo": (-(1 + 1.5 + 0.5) + 2, 4),  # no clip
    "reinforce": (-(1 + 1.5 + 0.5) + 2, 4),
}


@pytest.mark.parametrize("name", PRESETS)
def test_preset_equals_hand_computed_loss(name):
    result, _ = evaluate(NEW, OLD, ADVANTAGES, PRESETS[name].loss, fixed_length=8)
    expected_sum, expected_count = GOLDEN[name]
    assert float(result.loss_sum.detach()) == pytest.approx(expected_sum, abs=1e-12)
    assert float(result.count) == expected_count


def test_presets_choose_their_papers_advantage():
    chosen = [p.advantage for p in (GRPO, DR_GRPO, DAPO, GSPO, RLOO, REINFORCE)]
    assert chosen == [
        "group_std", "group_mean", "group_std", "group_std", "leave_one_out", "batch",
    ]  # fmt: skip


def test_clipped_tokens_have_no_gradient_and_are_counted():
    result, gradient_M = evaluate(NEW, OLD, ADVANTAGES, PolicyLossConfig())
    # -ratio * advantage where it is not clipped; the good token at 1.5 is.
    np.testing.assert_allclose(gradient_M, [-1.0, 0.0, -0.5, 2.0])
    assert float(result.stats["num_clipped"]) == 1


def test_clip_higher_lets_good_tokens_rise_further():
    symmetric, _ = evaluate([[LOG(1.25)]], [[0.0]], [1.0], PolicyLossConfig())
    higher, _ = evaluate([[LOG(1.25)]], [[0.0]], [1.0], PolicyLossConfig(clip_high=0.28))
    assert float(symmetric.stats["num_clipped"]) == 1
    assert float(higher.stats["num_clipped"]) == 0


def test_dual_clip_bounds_the_loss_of_bad_tokens():
    plain, _ = evaluate([[LOG(10.0)]], [[0.0]], [-1.0], PolicyLossConfig())
    dual, gradient_M = evaluate([[LOG(10.0)]], [[0.0]], [-1.0], PolicyLossConfig(dual_clip=3.0))
    assert float(plain.loss_sum.detach()) == pytest.approx(10.0)
    assert float(dual.loss_sum.detach()) == pytest.approx(3.0)
    assert gradient_M.item() == 0.0


def test_on_policy_ratio_is_one_nothing_is_clipped_and_kl_is_zero():
    for config in {preset.loss for preset in PRESETS.values()}:
        result, gradient_M = evaluate(OLD, OLD, ADVANTAGES, config)
        assert float(result.stats["num_clipped"]) == 0
        assert float(result.stats["old_kl_sum"]) == 0
        if config.aggregation == "token":  # the gradient of REINFORCE
            np.testing.assert_allclose(gradient_M, [-1.0, -1.0, -1.0, 1.0])


def test_zero_advantage_contributes_exactly_nothing():
    result, gradient_M = evaluate(NEW, OLD, [0.0, 0.0], PolicyLossConfig())
    assert float(result.loss_sum.detach()) == 0.0
    assert not gradient_M.any()


log_probs = st.floats(-3, -0.01)
samples = st.lists(
    st.tuples(
        st.lists(st.tuples(log_probs, log_probs, st.floats(0, 2)), min_size=1, max_size=5),
        st.floats(-2, 2),
    ),
    min_size=1,
    max_size=5,
)
choices = st.sampled_from(
    [
        PolicyLossConfig(ratio, low, high, dual, aggregation)
        for ratio, (low, high), dual, aggregation in itertools.product(
            ("token", "sequence"),
            ((0.2, 0.28), (None, None), (None, 0.1)),
            (None, 3.0),
            ("token", "sequence", "fixed"),
        )
    ]
)


@given(drawn=samples, config=choices)
def test_loss_equals_the_numpy_twin(drawn, config):
    new = [[t[0] for t in tokens] for tokens, _ in drawn]
    old = [[t[1] for t in tokens] for tokens, _ in drawn]
    weights = [[t[2] for t in tokens] for tokens, _ in drawn]
    advantages = [advantage for _, advantage in drawn]
    result, _ = evaluate(new, old, advantages, config, weights=weights, fixed_length=5)
    twin = policy_loss_twin(new, old, advantages, config, weights=weights, fixed_length=5)
    assert float(result.loss_sum.detach()) == pytest.approx(twin[0], rel=1e-9, abs=1e-9)
    assert float(result.count) == twin[1]


@pytest.mark.parametrize(
    ("choice", "value"), [("clip_low", 1.5), ("clip_high", 0.0), ("dual_clip", 0.9)]
)
def test_choices_out_of_range_are_refused(choice, value):
    with pytest.raises(ConfigError, match=choice):
        PolicyLossConfig(**{choice: value})
