"""Published configurations of families with experts: what they say, round trips, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from weft.core.errors import UnsupportedError
from weft.spec import ModelSpec, MoESpec
from weft.spec.families import spec_from_hf, spec_to_hf

MIXTRAL_8X7B = {
    "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mixtral",
    "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "num_local_experts": 8, "output_router_logits": False,
    "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02,
    "sliding_window": None, "tie_word_embeddings": False, "vocab_size": 32000,
}  # fmt: skip
QWEN3_30B_A3B = {
    "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": False, "bos_token_id": 151643,
    "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960,
    "max_window_layers": 48, "mlp_only_layers": [], "model_type": "qwen3_moe",
    "moe_intermediate_size": 768, "norm_topk_prob": True, "num_attention_heads": 32,
    "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
    "num_key_value_heads": 4, "output_router_logits": False, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001,
    "sliding_window": None, "tie_word_embeddings": False, "use_sliding_window": False,
    "vocab_size": 151936,
}  # fmt: skip
QWEN15_MOE = {
    "architectures": ["Qwen2MoeForCausalLM"], "bos_token_id": 151643, "eos_token_id": 151643,
    "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 5632,
    "max_position_embeddings": 8192, "max_window_layers": 21, "model_type": "qwen2_moe",
    "num_attention_heads": 16, "num_hidden_layers": 24, "num_key_value_heads": 16,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
    "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 151936,
    "decoder_sparse_step": 1, "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4, "num_experts": 60,
    "norm_topk_prob": False, "output_router_logits": False, "router_aux_loss_coef": 0.001,
}  # fmt: skip
GPT_OSS_20B = {
    "architectures": ["GptOssForCausalLM"], "attention_bias": True, "eos_token_id": 200002,
    "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880,
    "initial_context_length": 4096, "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "max_position_embeddings": 131072, "model_type": "gpt_oss", "num_attention_heads": 64,
    "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 8,
    "num_local_experts": 32, "pad_token_id": 199999,
    "quantization_config": {"quant_method": "mxfp4"}, "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
        "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": False,
    },
    "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128,
    "swiglu_limit": 7.0, "tie_word_embeddings": False, "vocab_size": 201088,
}  # fmt: skip
MINIMAX_M2 = {
    "architectures": ["MiniMaxM2ForCausalLM"], "attn_type_list": [1] * 62, "head_dim": 128,
    "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 1536,
    "max_position_embeddings": 196608, "model_type": "minimax_m2", "mtp_transformer_layers": 1,
    "num_attention_heads": 48, "num_experts_per_tok": 8, "num_hidden_layers": 62,
    "num_key_value_heads": 8, "num_local_experts": 256, "num_mtp_modules": 3,
    "qk_norm_type": "per_layer", "rms_norm_eps": 1e-06, "rope_theta": 5000000, "rotary_dim": 64,
    "router_jitter_noise": 0.0, "scoring_func": "sigmoid", "shared_intermediate_size": 0,
    "sliding_window": None, "tie_word_embeddings": False, "use_mtp": True, "use_qk_norm": True,
    "use_routing_bias": True, "vocab_size": 200064,
}  # fmt: skip
GLM_45 = {
    "architectures": ["Glm4MoeForCausalLM"], "attention_bias": True, "pad_token_id": 151329,
    "eos_token_id": [151329, 151336, 151338], "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 5120, "partial_rotary_factor": 0.5, "intermediate_size": 12288,
    "max_position_embeddings": 131072, "model_type": "glm4_moe", "moe_intermediate_size": 1536,
    "norm_topk_prob": True, "num_attention_heads": 96, "n_group": 1, "topk_group": 1,
    "n_routed_experts": 160, "n_shared_experts": 1, "routed_scaling_factor": 2.5,
    "num_experts_per_tok": 8, "first_k_dense_replace": 3, "num_hidden_layers": 92,
    "num_key_value_heads": 8, "num_nextn_predict_layers": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": None, "rope_theta": 1000000, "tie_word_embeddings": False,
    "use_qk_norm": True, "vocab_size": 151552,
}  # fmt: skip
PUBLISHED = {
    "Mixtral-8x7B": MIXTRAL_8X7B,
    "Qwen3-30B-A3B": QWEN3_30B_A3B,
    "Qwen1.5-MoE-A2.7B": QWEN15_MOE,
    "gpt-oss-20b": GPT_OSS_20B,
    "MiniMax-M2": MINIMAX_M2,
    "GLM-4.5": GLM_45,
}


def experts(spec: ModelSpec) -> MoESpec:
    ffn = spec.layers[-1].ffn
    assert isinstance(ffn, MoESpec)
    return ffn


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_written_reads_back_as_the_same_model(name: str):
    spec = spec_from_hf(PUBLISHED[name])
    assert spec_from_hf(spec_to_hf(spec)) == spec


def test_mixtral():
    spec = spec_from_hf(MIXTRAL_8X7B)
    moe = experts(spec)
    assert (moe.num_experts, moe.top_k, moe.expert.hidden_dim) == (8, 2, 14336)
    assert moe.router.score == "softmax"
    assert moe.router.normalise
    assert spec.layers[0].mixer.window is None


def test_qwen_moe():
    spec = spec_from_hf(QWEN15_MOE)
    moe = experts(spec)
    assert (moe.num_experts, moe.top_k, moe.expert.hidden_dim) == (60, 4, 1408)
    assert moe.shared.hidden_dim == 5632
    assert moe.shared_gate
    assert not moe.router.normalise
    assert spec.layers[0].mixer.qkv_bias
    mixed = spec_from_hf({**QWEN3_30B_A3B, "mlp_only_layers": [0, 5], "decoder_sparse_step": 2})
    dense = [i for i, layer in enumerate(mixed.layers) if not isinstance(layer.ffn, MoESpec)]
    assert dense == sorted({5, *range(0, 48, 2)})
    assert mixed.layers[0].ffn.hidden_dim == 6144


def test_gpt_oss():
    spec = spec_from_hf(GPT_OSS_20B)
    moe, first = experts(spec), spec.layers[0].mixer
    assert (moe.router.score, moe.router.bias) == ("softmax_chosen", True)
    assert (moe.expert.activation, moe.expert.bias) == ("clamped_swish", True)
    assert [layer.mixer.window for layer in spec.layers[:3]] == [128, None, 128]
    assert first.sinks
    assert (first.rotary.scaling.kind, first.rotary.scaling.factor) == ("yarn", 32.0)
    assert not first.rotary.scaling.truncate
    without = {key: value for key, value in GPT_OSS_20B.items() if key != "rope_scaling"}
    assert spec_from_hf(without) == spec, "a missing scaling means the published one"


def test_minimax():
    spec = spec_from_hf(MINIMAX_M2)
    mixer, router = spec.layers[0].mixer, experts(spec).router
    assert mixer.qk_norm == "all_heads"
    assert mixer.rotary.dim == 64
    assert (router.score, router.correction_bias) == ("sigmoid", True)


def test_glm():
    spec = spec_from_hf(GLM_45)
    moe = experts(spec)
    assert [isinstance(layer.ffn, MoESpec) for layer in spec.layers[:5]] == [False] * 3 + [True] * 2
    assert (moe.router.weight_scale, moe.router.group_score) == (2.5, "top2_sum")
    assert moe.shared.hidden_dim == 1536
    assert spec.layers[0].mixer.qk_norm == "head"
    assert spec.layers[0].mixer.rotary.dim == 64
    assert spec.num_mtp_layers == 0
    assert spec_to_hf(replace(spec, num_mtp_layers=1))["num_nextn_predict_layers"] == 1


@pytest.mark.parametrize(
    ("config", "change", "field"),
    [
        (GPT_OSS_20B, {"swiglu_limit": 6.0}, "swiglu_limit"),
        (GPT_OSS_20B, {"layer_types": ["linear_attention"] * 24}, "layer_types"),
        (MINIMAX_M2, {"use_routing_bias": False}, "use_routing_bias"),
        (MINIMAX_M2, {"qk_norm_type": "per_head"}, "qk_norm_type"),
        (MIXTRAL_8X7B, {"hidden_act": "crelu"}, "hidden_act"),
    ],
)
def test_fields_beyond_a_family_are_refused_by_name(config, change, field):
    with pytest.raises(UnsupportedError, match=field):
        spec_from_hf({**config, **change})


@pytest.mark.parametrize(
    "change", [{"capacity_factor": 1.25}, {"latent_dim": 64}, {"shared": None}]
)
def test_mixtures_beyond_a_family_are_refused(change):
    spec = spec_from_hf(QWEN15_MOE)
    change = {"shared_gate": False, **change} if "shared" in change else change
    moe = replace(experts(spec), **change)
    layers = tuple(replace(layer, ffn=moe) for layer in spec.layers)
    with pytest.raises(UnsupportedError, match="qwen2_moe"):
        spec_to_hf(replace(spec, layers=layers))


def test_losses_of_training_do_not_keep_a_model_from_being_written():
    spec = spec_from_hf(QWEN3_30B_A3B)
    moe = experts(spec)
    trained = replace(moe, router=replace(moe.router, aux_loss=0.01, z_loss=0.001))
    layers = tuple(replace(layer, ffn=trained) for layer in spec.layers)
    assert spec_to_hf(replace(spec, layers=layers)) == spec_to_hf(spec)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("Mixtral-8x7B", 46_702_792_704),
        ("Qwen3-30B-A3B", 30_532_122_624),
        ("Qwen1.5-MoE-A2.7B", 14_315_784_192),
        ("gpt-oss-20b", 20_914_757_184),
    ],
)
def test_published_sizes(name: str, total: int):
    from weft.models.decoder import Decoder

    assert Decoder(spec_from_hf(PUBLISHED[name]), device="meta").num_parameters == total
