"""Row M04: DeepSeek-V3's router at its published size, ids and weights."""

from __future__ import annotations

import pytest
import torch

from weft.nn.moe.router import Router
from weft.spec import MLPSpec, MoESpec, RouterSpec

ROUTER = RouterSpec(
    score="sigmoid",
    weight_scale=2.5,
    num_groups=8,
    num_kept_groups=4,
    group_score="top2_sum",
    correction_bias=True,
)


def test_256_experts_in_8_groups_of_which_4_are_kept():
    modeling = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
    from transformers import DeepseekV3Config

    torch.manual_seed(0)
    config = DeepseekV3Config(hidden_size=64)
    assert (config.n_routed_experts, config.num_experts_per_tok) == (256, 8)
    assert (config.n_group, config.topk_group, config.routed_scaling_factor) == (8, 4, 2.5)
    theirs = modeling.DeepseekV3TopkRouter(config)
    ours = Router(64, MoESpec(256, 8, MLPSpec(8), ROUTER), layer=0)
    with torch.no_grad():
        theirs.weight.normal_()
        theirs.e_score_correction_bias.normal_(0.0, 0.2)
        ours.weight.copy_(theirs.weight)
        ours.correction_bias.copy_(theirs.e_score_correction_bias)
        x = torch.randn(300, 64)
        _, weights, ids = theirs(x)
        routing = ours(x)
    order, our_order = ids.argsort(-1), routing.ids_TK.argsort(-1)
    assert torch.equal(ids.gather(1, order), routing.ids_TK.gather(1, our_order))
    torch.testing.assert_close(
        routing.weights_TK.gather(1, our_order), weights.gather(1, order), atol=1e-7, rtol=1e-6
    )
    unbiased = MoESpec(256, 8, MLPSpec(8), ROUTER)
    plain = Router(64, unbiased, layer=0)
    with torch.no_grad():
        plain.weight.copy_(theirs.weight)
    assert not torch.equal(plain(x).ids_TK, routing.ids_TK), "the bias must matter here"
