"""``config.json`` of published models with latent attention, without what only their code reads."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]


def _yarn(factor: int, mscale: float) -> Config:
    return {
        "rope_scaling": {
            "type": "yarn",
            "factor": factor,
            "mscale": mscale,
            "mscale_all_dim": mscale,
            "beta_fast": 32,
            "beta_slow": 1,
            "original_max_position_embeddings": 4096,
        }
    }


COMMON: Config = {
    "hidden_act": "silu",
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "kv_lora_rank": 512,
    "rms_norm_eps": 1e-6,
    "moe_layer_freq": 1,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "max_position_embeddings": 163840,
    "rope_theta": 10000,
}
DEEPSEEK_V2_LITE: Config = {
    **COMMON,
    **_yarn(40, 0.707),
    "model_type": "deepseek_v2",
    "vocab_size": 102400,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "n_shared_experts": 2,
    "n_routed_experts": 64,
    "routed_scaling_factor": 1.0,
    "q_lora_rank": None,
    "topk_method": "greedy",
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 6,
    "first_k_dense_replace": 1,
    "norm_topk_prob": False,
    "scoring_func": "softmax",
}
DEEPSEEK_V2: Config = {
    **DEEPSEEK_V2_LITE,
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_hidden_layers": 60,
    "num_attention_heads": 128,
    "n_routed_experts": 160,
    "routed_scaling_factor": 16.0,
    "q_lora_rank": 1536,
    "topk_method": "group_limited_greedy",
    "n_group": 8,
    "topk_group": 3,
}
DEEPSEEK_V3: Config = {
    **COMMON,
    **_yarn(40, 1.0),
    "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "n_shared_experts": 1,
    "n_routed_experts": 256,
    "routed_scaling_factor": 2.5,
    "q_lora_rank": 1536,
    "topk_method": "noaux_tc",
    "n_group": 8,
    "topk_group": 4,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "norm_topk_prob": True,
    "scoring_func": "sigmoid",
    "num_nextn_predict_layers": 1,
}
DEEPSEEK_V32: Config = {
    **DEEPSEEK_V3,
    "model_type": "deepseek_v32",
    "index_head_dim": 128,
    "index_n_heads": 64,
    "index_topk": 2048,
}
KIMI_K2: Config = {
    **DEEPSEEK_V3,
    **_yarn(32, 1.0),
    "model_type": "kimi_k2",
    "vocab_size": 163840,
    "num_attention_heads": 64,
    "n_routed_experts": 384,
    "routed_scaling_factor": 2.827,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "rope_theta": 50000,
    "max_position_embeddings": 131072,
    "num_nextn_predict_layers": 0,
}
PUBLISHED = {
    "deepseek-v2-lite": DEEPSEEK_V2_LITE,
    "deepseek-v2": DEEPSEEK_V2,
    "deepseek-v3": DEEPSEEK_V3,
    "deepseek-v3.2": DEEPSEEK_V32,
    "kimi-k2": KIMI_K2,
}
