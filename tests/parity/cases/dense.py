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
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES = {
    "llama": Case("Llama", SIZES, sample=True),
    "llama-tied": Case("Llama", {**SIZES, "tie_word_embeddings": True}),
    "llama-bias": Case("Llama", {**SIZES, "attention_bias": True, "mlp_bias": True}),
    "llama-mqa": Case("Llama", {**SIZES, "num_key_value_heads": 1}),
    "llama-rope3": Case("Llama", {**SIZES, "rope_parameters": LLAMA3_ROPE}),
    "qwen3": Case("Qwen3", {**SIZES, "head_dim": 24}),
    "qwen3-tied": Case("Qwen3", {**SIZES, "head_dim": 16, "tie_word_embeddings": True}),
}
