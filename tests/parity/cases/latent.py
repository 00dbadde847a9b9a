"""Latent attention: DeepSeek-V2 to V3.2 and the models that share their layout."""

from __future__ import annotations

from tests.parity.harness import Case

ATTENTION = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "max_position_embeddings": 128,
}
EXPERTS = {
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
}
GROUPS = {"n_group": 4, "topk_group": 2}
DENSE = {**ATTENTION, "first_k_dense_replace": 2}
MOE = {**ATTENTION, **EXPERTS}
INDEXER = {"index_n_heads": 16, "index_head_dim": 16, "index_topk": 5}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 0.707,
    "mscale_all_dim": 0.9,
    "original_max_position_embeddings": 32,
}
# The balancing bias is a buffer here and there; the indexer only selects and has no gradient.
CASES = {
    "deepseek-v2-dense": Case("DeepseekV2", DENSE),
    "deepseek-v2-lite-dense": Case("DeepseekV2", {**DENSE, "q_lora_rank": None}),
    "deepseek-v2-lite": Case(
        "DeepseekV2", {**MOE, "q_lora_rank": None, "topk_method": "greedy"}, sample=True
    ),
    "deepseek-v2-groups": Case(
        "DeepseekV2", {**MOE, **GROUPS, "topk_method": "group_limited_greedy"}
    ),
    "deepseek-v2-yarn": Case("DeepseekV2", {**DENSE, "rope_parameters": YARN}),
    "deepseek-v3-dense": Case("DeepseekV3", DENSE),
    "deepseek-v3": Case("DeepseekV3", {**MOE, **GROUPS}, sample=True),
    "deepseek-v3-lite": Case("DeepseekV3", {**DENSE, "q_lora_rank": None}),
    "deepseek-v3-bias": Case("DeepseekV3", {**DENSE, "attention_bias": True}),
    "deepseek-v3-half": Case("DeepseekV3", {**DENSE, "rope_interleave": False}),
    "deepseek-v3-tied": Case("DeepseekV3", {**DENSE, "tie_word_embeddings": True}),
    "deepseek-v3-yarn": Case("DeepseekV3", {**DENSE, "rope_parameters": YARN}),
    "deepseek-v3-unscaled": Case(
        "DeepseekV3", {**MOE, **GROUPS, "norm_topk_prob": False, "routed_scaling_factor": 1.5}
    ),
    "deepseek-v32": Case("DeepseekV32", {**MOE, **GROUPS, **INDEXER}),
    "deepseek-v32-dense": Case("DeepseekV32", {**DENSE, **INDEXER}, sample=True),
    "deepseek-v32-all": Case("DeepseekV32", {**DENSE, **INDEXER, "index_topk": 64}),
    "glm-4.7-flash": Case("Glm4MoeLite", {**MOE, "n_group": 1, "topk_group": 1}),
    "glm-5": Case("GlmMoeDsa", {**MOE, **INDEXER}),
}
