"""Decoders with softmax attention and mixtures of experts."""

from __future__ import annotations

from tests.parity.harness import Case

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
QWEN = {
    **SIZES,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "norm_topk_prob": True,
}
QWEN2 = {**QWEN, "shared_expert_intermediate_size": 32, "norm_topk_prob": False}
QWEN3 = {**QWEN, "head_dim": 16}
GPT_OSS = {**SIZES, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2}
MINIMAX = {**SIZES, "head_dim": 16, "num_local_experts": 8, "num_experts_per_tok": 3}
GLM = {
    **SIZES,
    "head_dim": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "pad_token_id": 0,
}

CASES = {
    "mixtral": Case("Mixtral", {**SIZES, "num_local_experts": 4}),
    "mixtral-window": Case(
        "Mixtral",
        {**SIZES, "num_local_experts": 4, "sliding_window": 5, "tie_word_embeddings": True},
    ),
    "qwen2_moe": Case("Qwen2Moe", QWEN2),
    "qwen2_moe-mixed": Case(
        "Qwen2Moe",
        {
            **QWEN2,
            "num_hidden_layers": 4,
            "decoder_sparse_step": 2,
            "qkv_bias": False,
            "norm_topk_prob": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 3,
        },
    ),
    "qwen3_moe": Case("Qwen3Moe", QWEN3, sample=True),
    "qwen3_moe-mixed": Case(
        "Qwen3Moe",
        {**QWEN3, "mlp_only_layers": [1], "attention_bias": True, "norm_topk_prob": False},
    ),
    "gpt_oss": Case("GptOss", {**GPT_OSS, "sliding_window": 5}, sample=True),
    "gpt_oss-plain": Case(
        "GptOss",
        {
            **GPT_OSS,
            "sliding_window": 4,
            "attention_bias": False,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
            "tie_word_embeddings": True,
        },
    ),
    "minimax_m2": Case("MiniMaxM2", MINIMAX),
    "minimax_m2-partial": Case(
        "MiniMaxM2",
        {
            **MINIMAX,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 500.0,
                "partial_rotary_factor": 0.5,
            },
        },
    ),
    "glm4_moe": Case("Glm4Moe", GLM),
    "glm4_moe-groups": Case(
        "Glm4Moe",
        {
            **GLM,
            "n_group": 4,
            "topk_group": 2,
            "n_shared_experts": 2,
            "routed_scaling_factor": 2.5,
            "use_qk_norm": True,
            "attention_bias": True,
            "first_k_dense_replace": 2,
        },
    ),
}
