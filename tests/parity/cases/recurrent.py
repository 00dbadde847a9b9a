"""Decoders with recurrent layers.

transformers runs its own torch forms of the recurrences here, with chunks of other lengths than
ours. Linear attention, plain, gated or with fixed decays, RWKV-5 and RWKV-6 have no model there;
``tests/ops/recurrent`` and ``tests/nn/recurrent`` hold them to the written recurrence.
"""

from __future__ import annotations

from tests.parity.cases.dense import SIZES
from tests.parity.harness import Case

QWEN = {
    **SIZES,
    "num_hidden_layers": 4,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
}
QWEN_MOE = {name: value for name, value in QWEN.items() if name != "intermediate_size"} | EXPERTS
LINEAR, FULL = "linear_attention", "full_attention"
KIMI = {
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 4,
    "layer_types": [LINEAR, LINEAR, LINEAR, FULL],
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 24,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "linear_num_heads": 4,
    "linear_head_dim": 12,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "max_position_embeddings": 128,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MAMBA = {
    "hidden_size": 48,
    "num_heads": 6,
    "head_dim": 16,
    "state_size": 12,
    "n_groups": 2,
    "num_hidden_layers": 3,
    "chunk_size": 16,
    "pad_token_id": None,
}
MAMBA_1 = {
    "hidden_size": 40,
    "state_size": 6,
    "num_hidden_layers": 3,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
RWKV = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "context_length": 128,
    "rescale_every": 0,
}
LFM2 = {
    **SIZES,
    "num_hidden_layers": 4,
    "full_attn_idxs": [1],
    "block_multiple_of": 16,
}
ROUTER_BIAS = ("e_score_correction_bias",)
CASES = {
    "qwen3-next": Case("Qwen3Next", {**QWEN, **EXPERTS}),
    "qwen3-next-dense": Case("Qwen3Next", {**QWEN, "num_experts": 0}, sample=True),
    "qwen3-next-mixed": Case(
        "Qwen3Next",
        {
            **QWEN,
            **EXPERTS,
            "mlp_only_layers": [1],
            "layer_types": [LINEAR, FULL, LINEAR, LINEAR],
            "norm_topk_prob": False,
            "attention_bias": True,
            "linear_conv_kernel_dim": 3,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 500.0,
                "partial_rotary_factor": 0.5,
            },
        },
    ),
    "qwen3.5": Case("Qwen3_5", QWEN, config_class="Qwen3_5TextConfig"),
    "qwen3.5-moe": Case("Qwen3_5Moe", QWEN_MOE, config_class="Qwen3_5MoeTextConfig"),
    "kimi-linear": Case("KimiLinear", KIMI, frozen=ROUTER_BIAS),
    "kimi-linear-groups": Case(
        "KimiLinear",
        {
            **KIMI,
            "num_local_experts": 8,
            "n_group": 4,
            "topk_group": 2,
            "q_lora_rank": 20,
            "n_shared_experts": 2,
            "norm_topk_prob": False,
            "mlp_layer_types": ["dense", "dense", "sparse", "sparse"],
        },
        frozen=ROUTER_BIAS,
    ),
    "mamba": Case("Mamba", MAMBA_1),
    "mamba-bias": Case(
        "Mamba",
        {
            **MAMBA_1,
            "use_bias": True,
            "use_conv_bias": False,
            "conv_kernel": 3,
            "expand": 3,
            "time_step_rank": 5,
            "tie_word_embeddings": False,
        },
    ),
    "falcon-mamba": Case("FalconMamba", {**MAMBA_1, "mixer_rms_eps": 1e-5}),
    "mamba2": Case("Mamba2", MAMBA, sample=True),
    "mamba2-bias": Case(
        "Mamba2",
        {
            **MAMBA,
            "use_bias": True,
            "use_conv_bias": False,
            "n_groups": 1,
            "expand": 4,
            "num_heads": 12,
            "tie_word_embeddings": True,
        },
    ),
    "rwkv": Case("Rwkv", RWKV),
    "lfm2": Case("Lfm2", LFM2),
    "lfm2-bias": Case(
        "Lfm2",
        {**LFM2, "conv_bias": True, "conv_L_cache": 4, "block_auto_adjust_ff_dim": False},
    ),
}
