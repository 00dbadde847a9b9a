"""Shapes with experts: equal active width, a family that can hold them, refusals."""

from __future__ import annotations

import pytest

from weft.core.errors import ConfigError
from weft.spec import ExpertShape, ModelShape, MoESpec
from weft.spec.families import spec_from_hf, spec_to_hf

EXPERTS = ExpertShape(num_experts=8, top_k=2)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "glm4_moe"])
def test_experts_divide_the_dense_width_and_can_be_written(family: str):
    spec = ModelShape(family=family, dim=64, num_heads=4, ffn_dim=96, experts=EXPERTS).build(100)
    moe = spec.layers[0].ffn
    assert isinstance(moe, MoESpec)
    assert (moe.num_experts, moe.top_k, moe.expert.hidden_dim) == (8, 2, 48)
    again = spec_from_hf(spec_to_hf(spec))
    assert again.layers[0].ffn.expert == moe.expert
    assert again.layers[0].mixer == spec.layers[0].mixer


def test_routers_are_balanced_by_a_loss_or_by_a_bias():
    softmax = ModelShape(family="qwen3_moe", experts=EXPERTS).build(100).layers[0].ffn.router
    assert (softmax.aux_kind, softmax.aux_loss, softmax.bias_rate) == ("load", 0.01, 0.0)
    shared = ExpertShape(num_experts=8, top_k=2, shared_dim=64, aux_loss=0.0)
    moe = ModelShape(family="glm4_moe", ffn_dim=256, experts=shared).build(100).layers[0].ffn
    assert (moe.shared.hidden_dim, moe.expert.hidden_dim) == (64, 96)
    assert (moe.router.correction_bias, moe.router.bias_rate) == (True, 0.001)
    assert (moe.router.aux_kind, moe.router.aux_loss) == ("sequence", 0.0)


@pytest.mark.parametrize(
    "shape", [ModelShape(family="qwen3", experts=EXPERTS), ModelShape(family="qwen3_moe")]
)
def test_families_and_experts_must_belong_together(shape: ModelShape):
    with pytest.raises(ConfigError, match="num_experts"):
        shape.build(100)
