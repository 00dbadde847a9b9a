"""Dense decoders with softmax attention."""

from __future__ import annotations

from tests.parity.harness import Case

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
GEMMA = {**SIZES, "num_hidden_layers": 4, "head_dim": 24, "query_pre_attn_scalar": 20}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
# Every sequence is longer than the trained length, so both sides use the long factors.
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 1000.0,
    "short_factor": [1.0] * 6,
    "long_factor": [1.1, 1.3, 1.7, 2.5, 4.0, 6.0],
    "partial_rotary_factor": 0.75,
}
SHORT_ROPE = {**LONG_ROPE, "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]}
GPT2 = {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 128}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def llama(**changes: object) -> Case:
    return Case("Llama", {**SIZES, **changes})


LLAMAS = {
    "llama": Case("Llama", SIZES, sample=True),
    "llama-tied": llama(tie_word_embeddings=True),
    "llama-bias": llama(attention_bias=True, mlp_bias=True),
    "llama-mqa": llama(num_key_value_heads=1),
    "llama-mha": llama(num_key_value_heads=4),
    "llama-rope3": llama(rope_parameters=LLAMA3_ROPE),
    "llama-yarn": llama(rope_parameters=YARN_ROPE),
    "llama-linear": llama(
        rope_parameters={"rope_type": "linear", "rope_theta": 1000.0, "factor": 3.0}
    ),
    "llama-dynamic": llama(
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 3.0}
    ),
    "llama-head-dim": llama(head_dim=24, rms_norm_eps=1e-5),
}
QWENS = {
    "qwen2": Case("Qwen2", SIZES),
    "qwen2-tied": Case("Qwen2", {**SIZES, "tie_word_embeddings": True}),
    "qwen2-window": Case(
        "Qwen2",
        {**SIZES, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen2-types": Case(
        "Qwen2",
        {
            **SIZES,
            "use_sliding_window": True,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "qwen3": Case("Qwen3", {**SIZES, "head_dim": 24}),
    "qwen3-tied": Case("Qwen3", {**SIZES, "head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-window": Case(
        "Qwen3",
        {
            **SIZES,
            "head_dim": 16,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 2,
        },
    ),
}
GEMMAS = {
    "gemma2": Case("Gemma2", {**GEMMA, "sliding_window": 5}, sample=True),
    "gemma2-uncapped": Case(
        "Gemma2",
        {
            **GEMMA,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "attention_bias": True,
        },
    ),
    "gemma2-untied": Case("Gemma2", {**GEMMA, "tie_word_embeddings": False}),
    "gemma3": Case(
        "Gemma3",
        {**GEMMA, "num_hidden_layers": 7, "sliding_window": 5},
        config_class="Gemma3TextConfig",
    ),
    "gemma3-linear": Case(
        "Gemma3",
        {
            **GEMMA,
            "sliding_window": 4,
            "layer_types": ["full_attention", "sliding_attention"] * 2,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 5e4, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
            "final_logit_softcapping": 20.0,
        },
        config_class="Gemma3TextConfig",
    ),
}
OLMOS = {
    "olmo2": Case("Olmo2", SIZES),
    "olmo2-bias": Case("Olmo2", {**SIZES, "attention_bias": True, "tie_word_embeddings": True}),
    "olmo3": Case("Olmo3", {**SIZES, "num_hidden_layers": 5, "sliding_window": 5}),
    "olmo3-yarn": Case(
        "Olmo3",
        {
            **SIZES,
            "sliding_window": 5,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {**YARN_ROPE, "attention_factor": 1.2},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
        },
    ),
}
OTHERS = {
    "gpt2": Case("GPT2", {**GPT2, **NO_DROPOUT}, model="GPT2LMHeadModel", sample=True),
    "gpt2-scaled": Case(
        "GPT2",
        {**GPT2, **NO_DROPOUT, "scale_attn_by_inverse_layer_idx": True, "n_inner": 80},
        model="GPT2LMHeadModel",
    ),
    "gpt2-relu": Case(
        "GPT2",
        {**GPT2, **NO_DROPOUT, "activation_function": "relu", "tie_word_embeddings": False},
        model="GPT2LMHeadModel",
    ),
    "mistral": Case("Mistral", {**SIZES, "sliding_window": 6}),
    "mistral-full": Case("Mistral", {**SIZES, "sliding_window": None, "head_dim": 24}),
    "phi3": Case("Phi3", {**SIZES, "pad_token_id": 0}),
    "phi3-window": Case("Phi3", {**SIZES, "sliding_window": 5, "pad_token_id": 0}),
    "phi3-long": Case(
        "Phi3",
        {
            **SIZES,
            "pad_token_id": 0,
            "original_max_position_embeddings": 2,
            "rope_parameters": LONG_ROPE,
        },
    ),
    "phi3-short": Case(
        "Phi3",
        {
            **SIZES,
            "pad_token_id": 0,
            "original_max_position_embeddings": 128,
            "rope_parameters": SHORT_ROPE,
        },
    ),
    "glm": Case("Glm", {**SIZES, "head_dim": 16, "pad_token_id": 0}),
    "glm-quarter": Case(
        "Glm",
        {
            **SIZES,
            "head_dim": 16,
            "pad_token_id": 0,
            "attention_bias": False,
            "partial_rotary_factor": 0.25,
        },
    ),
    "glm4": Case("Glm4", {**SIZES, "head_dim": 16, "pad_token_id": 0}),
    "smollm3": Case("SmolLM3", {**SIZES, "num_hidden_layers": 5, "pad_token_id": 0}),
    "smollm3-window": Case(
        "SmolLM3",
        {
            **SIZES,
            "no_rope_layers": [1, 0, 1],
            "use_sliding_window": True,
            "sliding_window": 5,
            "pad_token_id": 0,
            "tie_word_embeddings": False,
        },
    ),
}
CASES = {**LLAMAS, **QWENS, **GEMMAS, **OLMOS, **OTHERS}
