from __future__ import annotations

import pytest
import torch

from weft.nn.relative import RelativeBias, build_relative_bias, distance_buckets
from weft.ops import ScoreRule
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, RelativeBiasSpec

SPEC = RelativeBiasSpec(num_buckets=8, max_distance=16)


@pytest.mark.parametrize("causal", [True, False])
def test_near_distances_have_buckets_of_their_own_and_far_ones_share(causal: bool):
    distances = torch.arange(-40, 41)
    buckets = distance_buckets(distances, SPEC, causal=causal)
    back = buckets[distances <= 0].flip(0)  # distance 0, -1, -2 ...
    num_exact = 4 if causal else 2
    assert back[:num_exact].tolist() == list(range(num_exact))
    assert (back.diff() >= 0).all()
    assert back[16:].unique().tolist() == [7 if causal else 3]
    ahead = buckets[distances > 0]
    if causal:
        assert (ahead == 0).all()
    else:
        assert torch.equal(ahead, back[1:] + 4), "later keys have the other half"


def test_bias_reaches_scores_by_distance_even_beyond_the_table():
    table = RelativeBias(SPEC, num_heads=2, causal=True)
    with torch.no_grad():
        table.weight.copy_(torch.arange(16.0).view(8, 2))
    rule = ScoreRule(1.0, bias_NR=table())
    distances = torch.tensor([[0, -3, -16, -500]])
    buckets = distance_buckets(distances, SPEC, causal=True)
    assert torch.equal(rule.bias(distances), table.weight[buckets].movedim(-1, 0))


def test_a_stack_has_a_table_only_if_its_layers_use_one():
    plain = LayerSpec(AttentionSpec(2, 2, 8), MLPSpec(16))
    biased = LayerSpec(AttentionSpec(2, 2, 8, rotary=None, relative=SPEC), MLPSpec(16))
    assert build_relative_bias((plain, plain)) is None
    table = build_relative_bias((biased, biased))
    assert table is not None
    assert table.weight.shape == (8, 2)
    assert table.causal
