"""Models spread over ranks say what the whole says, and hold no more than their share."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.models.ranks import on_ranks
from weft.core.errors import CheckpointError, ConfigError, UnsupportedError
from weft.models import heads
from weft.models.cuts import Cut, Sharding
from weft.models.decoder import Decoder
from weft.models.sharded import ShardedDecoder, load_whole
from weft.models.sharding import local_spec, plan_sharding
from weft.nn.context import StepContext
from weft.spec import (
    AttentionSpec,
    ChannelMixSpec,
    GatedDeltaNetSpec,
    IndexerSpec,
    KimiDeltaSpec,
    LayerSpec,
    LinearAttentionSpec,
    Mamba2Spec,
    MambaSpec,
    MatrixRWKVSpec,
    MLASpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
    NormSpec,
    RelativeBiasSpec,
    RouterSpec,
    RWKVSpec,
    ShortConvSpec,
)

DIM, VOCAB_SIZE = 32, 101
LENGTHS = (7, 1, 5)
MIXERS = {
    "multi-head": AttentionSpec(4, 4, 8, qkv_bias=True, out_bias=True),
    "grouped": AttentionSpec(4, 2, 8, qk_norm="head"),
    "multi-query": AttentionSpec(4, 1, 8, output_gate=True, sinks=True),
    "all heads' norm": AttentionSpec(4, 2, 8, qk_norm="all_heads"),
    "relative": AttentionSpec(4, 2, 8, relative=RelativeBiasSpec(8, 16)),
    "latent": MLASpec(4, 16, 8, 4, 8, query_latent_dim=12, bias=True, output_gate=True),
    "sparse latent": MLASpec(4, 16, 8, 4, 8, query_latent_dim=12, indexer=IndexerSpec(2, 8, 3)),
    "linear": LinearAttentionSpec(4, 8, 8, gate_rank=4, output_gate=True),
    "gated delta": GatedDeltaNetSpec(2, 4, 8, 8),
    "kimi delta": KimiDeltaSpec(4, 8),
    "mamba": MambaSpec(48, 4, 8, bias=True),
    "mamba2": Mamba2Spec(4, 8, 8, num_groups=4, bias=True),
    "rwkv": RWKVSpec(DIM, 24),
    "rwkv5": MatrixRWKVSpec(DIM, 4, 8),
    "rwkv6": MatrixRWKVSpec(DIM, 4, 8, shift_rank=4, decay_rank=4),
    "short conv": ShortConvSpec(DIM, bias=True),
}
EXPERT = MLPSpec(16)
FFNS = {
    "gated": MLPSpec(48, bias=True),
    "plain": MLPSpec(48, "gelu", gated=False, bias=True),
    "channel mix": ChannelMixSpec(DIM, 48),
    "experts": MoESpec(8, 2, EXPERT),
    "shared expert": MoESpec(
        8,
        3,
        EXPERT,
        RouterSpec(score="sigmoid", correction_bias=True, num_groups=4, num_kept_groups=2),
        shared=MLPSpec(24),
        shared_gate=True,
    ),
    "biased experts": MoESpec(4, 2, MLPSpec(16, "clamped_swish", bias=True)),
    "narrow experts": MoESpec(4, 2, MLPSpec(16, "relu2", gated=False), latent_dim=12),
    "bounded experts": MoESpec(4, 1, EXPERT, RouterSpec(kind="switch"), capacity_factor=1.0),
    "hashed experts": MoESpec(4, 2, EXPERT, RouterSpec(kind="hash")),
}


def model_spec(mixer=MIXERS["grouped"], ffn=FFNS["gated"], **fields) -> ModelSpec:
    layers = (LayerSpec(mixer, ffn),) * 2
    return ModelSpec("test", VOCAB_SIZE, DIM, layers, **({"tie_embeddings": False} | fields))


def randomised(spec: ModelSpec) -> Decoder:
    """Return a model in which no parameter, such as a bias, still has its neutral start."""
    model = Decoder(spec, seed=3).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return model


def scores(model: Decoder, tokens_T: torch.Tensor) -> torch.Tensor:
    hidden_TD = model(tokens_T, StepContext.packed(LENGTHS, keep_keys=model.spec.kv_sources))
    return heads.logits(model, hidden_TD)


def materialised(plan, group, whole) -> ShardedDecoder:
    part = ShardedDecoder(plan, group).to_empty(device="cpu").eval()
    load_whole(part, whole.state_dict())
    return part


def assert_equal_scores(spec: ModelSpec, size: int, **options) -> list[ShardedDecoder]:
    whole = randomised(spec)
    plan = plan_sharding(spec, size, **options)
    tokens_T = torch.arange(sum(LENGTHS)) * 7 % VOCAB_SIZE
    expected = scores(whole, tokens_T).detach()

    def work(group):
        part = materialised(plan, group, whole)
        return part, scores(part, tokens_T)

    found = on_ranks(size, work)
    for _, got in found:
        # Sums of float32 products in another order; tolerances grow with their size.
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-5)
        assert torch.equal(got, found[0][1])
    return [part for part, _ in found]


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("mixer", MIXERS)
def test_a_mixer_on_several_ranks_equals_the_whole(mixer, size):
    assert_equal_scores(model_spec(MIXERS[mixer]), size)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("ffn", FFNS)
def test_a_feed_forward_part_on_several_ranks_equals_the_whole(ffn, size):
    assert_equal_scores(model_spec(ffn=FFNS[ffn]), size)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("ffn", [name for name in FFNS if "expert" in name])
def test_whole_experts_dealt_out_equal_the_whole_mixture(ffn, size):
    parts = assert_equal_scores(model_spec(ffn=FFNS[ffn]), size, expert_split="experts")
    experts = parts[0].layers[0].ffn.experts
    assert experts.num_experts == FFNS[ffn].num_experts // size
    assert parts[0].layers[0].ffn.router.weight is None or (
        len(parts[0].layers[0].ffn.router.weight) == FFNS[ffn].num_experts
    )


@pytest.mark.parametrize("norms", ["pre", "post", "output", "sandwich"])
@pytest.mark.parametrize("norm", [NormSpec(), NormSpec(zero_centred=True, float32_weight=True)])
def test_norm_placements_and_tied_embeddings_equal_the_whole(norms, norm):
    spec = model_spec(MIXERS["all heads' norm"], norm=norm, tie_embeddings=True, logit_softcap=9.0)
    layers = tuple(dataclasses.replace(layer, norms=norms) for layer in spec.layers)
    assert_equal_scores(dataclasses.replace(spec, layers=layers), 2)


def test_shared_keys_of_another_layer_equal_the_whole():
    spec = model_spec()
    borrowing = dataclasses.replace(spec.layers[1].mixer, kv_source=0)
    layers = (spec.layers[0], dataclasses.replace(spec.layers[1], mixer=borrowing))
    assert_equal_scores(dataclasses.replace(spec, layers=layers), 2)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("ffn", ["gated", "shared expert", "biased experts"])
def test_shares_of_all_ranks_are_the_whole_and_nothing_twice(mixer, ffn):
    spec = model_spec(MIXERS[mixer], FFNS[ffn])
    plan = plan_sharding(spec, 2)
    for name, tensor in Decoder(spec, device="meta").state_dict().items():
        sharding = plan.sharding(name)
        held = torch.zeros(tensor.shape)
        for rank in range(2):
            for span in (
                sharding.spans(tensor.shape[sharding.axis], rank, 2) if tensor.dim() else ()
            ):
                held.narrow(sharding.axis, span.start, span.size).add_(1)
        wanted = {1.0} if sharding.cuts else {2.0}
        if name.endswith((".low.weight",)) or "multi-query" in mixer:
            wanted = {1.0, 2.0}  # some stretches are every rank's
        assert set(held.unique().tolist()) <= wanted, name


def test_local_parameters_add_up_to_the_whole():
    spec = model_spec(ffn=FFNS["shared expert"])
    whole, plan = Decoder(spec, device="meta"), plan_sharding(spec, 2)
    replicated = sum(p.numel() for n, p in whole.named_parameters() if not plan.sharding(n).cuts)
    parts = on_ranks(2, lambda group: ShardedDecoder(plan, group).num_parameters)
    assert sum(parts) == whole.num_parameters + replicated
    assert replicated < 0.1 * whole.num_parameters


def test_every_planned_tensor_and_module_exists():
    for mixer in MIXERS.values():
        for ffn in FFNS.values():
            spec = model_spec(mixer, ffn)
            whole = Decoder(spec, device="meta")
            plan = plan_sharding(spec, 2)
            assert set(plan.tensors) <= set(whole.state_dict()), mixer
            modules = dict(whole.named_modules())
            assert {*plan.sums, *plan.norms, *plan.experts} <= set(modules), mixer


def test_prediction_modules_are_cut_like_the_last_layer():
    plan = plan_sharding(model_spec(num_mtp_layers=2), 2)
    for module in range(2):
        name = f"mtp.{module}.block.mixer.qkv.weight"
        assert plan.sharding(name) == plan.sharding("layers.1.mixer.qkv.weight") != Sharding()
        assert f"mtp.{module}.block.ffn.down" in plan.sums


def test_a_block_costs_two_sums_and_a_step_one_more_and_a_gather():
    spec = model_spec()
    whole, plan = randomised(spec), plan_sharding(spec, 2)

    def work(group):
        scores(materialised(plan, group, whole), torch.arange(sum(LENGTHS)))
        return group.num_sums, group.num_gathers

    assert on_ranks(2, work) == [(2 * spec.num_layers + 1, 1)] * 2


@pytest.mark.parametrize(
    ("mixer", "ffn", "size", "words"),
    [
        (AttentionSpec(6, 6, 8), MLPSpec(48), 4, "6 query heads do not divide among 4 ranks"),
        (AttentionSpec(12, 3, 8), MLPSpec(48), 2, "3 key-value heads do not divide among 2 ranks"),
        (MIXERS["grouped"], MLPSpec(50), 4, "50 feed-forward channels do not divide among 4"),
        (MIXERS["mamba2"], MLPSpec(48), 8, "4 groups of heads do not divide among 8 ranks"),
        (MIXERS["grouped"], MLPSpec(48), 0, "0 ranks"),
    ],
)
def test_what_does_not_divide_is_named(mixer, ffn, size, words):
    with pytest.raises(ConfigError, match=words):
        local_spec(model_spec(mixer, ffn), size)


def test_experts_that_do_not_divide_are_named():
    spec = model_spec(ffn=MoESpec(6, 2, EXPERT))
    with pytest.raises(ConfigError, match="6 experts do not divide among 4 ranks"):
        plan_sharding(spec, 4, expert_split="experts")
    assert plan_sharding(spec, 4).local.layers[0].ffn.expert.hidden_dim == 4


@pytest.mark.parametrize(
    ("mixer", "norm", "words"),
    [
        (AttentionSpec(4, 4, 8, rotary=None, alibi=True), NormSpec(), "ALiBi"),
        (LinearAttentionSpec(4, 8, 8, retention=True), NormSpec(), "decays"),
        (AttentionSpec(4, 4, 8, qk_norm="all_heads"), NormSpec(kind="layer"), "LayerNorm"),
    ],
)
def test_what_cannot_be_shared_is_refused_with_the_reason(mixer, norm, words):
    with pytest.raises(UnsupportedError, match=f"layer 0 cannot be shared .*{words}"):
        plan_sharding(model_spec(mixer, norm=norm), 2)


def test_expert_choice_keeps_its_experts_together():
    spec = model_spec(ffn=MoESpec(4, 1, EXPERT, RouterSpec(kind="expert_choice")))
    with pytest.raises(UnsupportedError, match="expert_choice"):
        plan_sharding(spec, 2, expert_split="experts")
    assert_equal_scores(spec, 2)


def test_one_rank_is_the_model_itself():
    spec = model_spec()
    plan = plan_sharding(spec, 1)
    assert plan.local == spec
    assert not plan.tensors


@pytest.mark.parametrize(
    ("num_units", "num_ranks", "shares"),
    [
        (4, 2, [(0, 4), (4, 4)]),
        (2, 4, [(0, 4), (0, 4), (4, 4), (4, 4)]),
        (8, 3, [(0, 3), (3, 3), (6, 2)]),
        (0, 2, [(0, 8), (0, 8)]),
    ],
)
def test_shares_of_a_stretch_of_eight(num_units, num_ranks, shares):
    cut = Cut(8, num_units)
    assert [cut.share(rank, num_ranks) for rank in range(num_ranks)] == shares


def test_a_weight_of_another_shape_is_refused():
    spec = model_spec()
    tensors = randomised(spec).state_dict()
    tensors["norm.weight"] = torch.zeros(DIM + 1)

    def work(group):
        part = ShardedDecoder(plan_sharding(spec, 2), group).to_empty(device="cpu")
        with pytest.raises(CheckpointError, match=r"norm\.weight"):
            load_whole(part, tensors)

    on_ranks(2, work)


def test_the_whole_output_projection_is_nowhere():
    spec = model_spec()
    part = on_ranks(2, lambda group: ShardedDecoder(plan_sharding(spec, 2), group))[1]
    assert tuple(part.head.weight.shape) == (50, DIM)
    with pytest.raises(UnsupportedError, match="spread over 2 ranks"):
        _ = part.head_weight
