"""A shared expert computed as routed ones gives what the separate one gives."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from weft.core.errors import UnsupportedError
from weft.nn.context import StepContext
from weft.nn.moe.fused import FusedMoE
from weft.nn.moe.layer import MoE
from weft.spec import MLPSpec, MoESpec, RouterSpec

SPEC = MoESpec(4, 2, MLPSpec(8), RouterSpec(), shared=MLPSpec(8))
SPECS = {
    "one shared expert": SPEC,
    "as wide as three": dataclasses.replace(SPEC, shared=MLPSpec(24)),
    "gated by the token": dataclasses.replace(SPEC, shared_gate=True),
    "ungated relu": dataclasses.replace(
        SPEC,
        expert=MLPSpec(8, activation="relu", gated=False),
        shared=MLPSpec(16, activation="relu", gated=False),
    ),
    "gelu": dataclasses.replace(
        SPEC, expert=MLPSpec(8, activation="gelu"), shared=MLPSpec(8, activation="gelu")
    ),
    "dropping beyond a capacity": dataclasses.replace(SPEC, capacity_factor=0.5),
    "weights of the router scaled": dataclasses.replace(
        SPEC, router=RouterSpec(score="sigmoid", weight_scale=2.5)
    ),
}


def context(num_tokens: int) -> StepContext:
    return StepContext.packed([num_tokens])


@pytest.mark.parametrize("name", SPECS)
def test_fused_gives_what_separate_gives(name):
    torch.manual_seed(0)
    moe = MoE(16, SPECS[name], layer=0)
    fused = FusedMoE(moe)
    x_TD = torch.randn(11, 16)
    separate, together = context(11), context(11)
    with torch.no_grad():
        torch.testing.assert_close(fused(x_TD, together), moe(x_TD, separate), rtol=1e-5, atol=1e-6)
    assert torch.equal(together.routing[0].ids_TK, separate.routing[0].ids_TK)
    assert together.routing[0].counts_E.shape == (4,)


def test_without_the_added_choice_the_result_is_another():
    torch.manual_seed(0)
    moe = MoE(16, SPEC, layer=0)
    fused = FusedMoE(moe)
    x_TD = torch.randn(5, 16)
    with torch.no_grad():
        fused.experts.get_parameter("down")[-1].zero_()
        difference_TD = moe(x_TD, context(5)) - fused(x_TD, context(5))
        torch.testing.assert_close(difference_TD, moe.shared(x_TD), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"shared": None}, "no shared expert"),
        ({"shared": MLPSpec(12)}, "12 is no multiple of 8"),
        ({"shared": MLPSpec(8, activation="gelu")}, "another activation"),
        ({"shared": MLPSpec(8, bias=True)}, "biases"),
        ({"latent_dim": 8}, "another width"),
        ({"router": RouterSpec(kind="expert_choice")}, "do not choose"),
    ],
)
def test_what_cannot_be_fused_is_refused(changes, reason):
    moe = MoE(16, dataclasses.replace(SPEC, **changes), layer=0)
    with pytest.raises(UnsupportedError, match=reason):
        FusedMoE(moe)
