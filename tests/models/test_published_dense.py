"""``config.json`` as published, with the field names of its day: read, counted, written back."""

from __future__ import annotations

from typing import Any

import pytest

from weft.models.decoder import Decoder
from weft.spec import AttentionSpec, ModelSpec
from weft.spec.families import spec_from_hf, spec_to_hf


def sizes(
    vocab_size: int,
    hidden_size: int,
    intermediate_size: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    context: int,
    **others: Any,
) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "max_position_embeddings": context,
        "rope_scaling": None,
        **others,
    }


GEMMA = {
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
}
PHI3_SCALING = {"type": "su", "short_factor": [1.05] * 48, "long_factor": [1.03, 30.0] * 24}
OLMO3_SCALING = {
    "rope_type": "yarn",
    "factor": 8.0,
    "attention_factor": 1.2079441541679836,
    "beta_fast": 32,
    "beta_slow": 1,
    "original_max_position_embeddings": 8192,
}
LLAMA32_SCALING = {
    "rope_type": "llama3",
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
}
# name -> (model_type, fields, parameters)
PUBLISHED: dict[str, tuple[str, dict[str, Any], int]] = {
    "gpt2": (
        "gpt2",
        {"vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024},
        124_439_808,
    ),
    "Llama-2-7b": (
        "llama",
        sizes(32000, 4096, 11008, 32, 32, 32, 4096, rms_norm_eps=1e-5, pretraining_tp=1),
        6_738_415_616,
    ),
    "Llama-3.2-1B": (
        "llama",
        sizes(128256, 2048, 8192, 16, 32, 8, 131072, head_dim=64, rope_theta=5e5)
        | {"rope_scaling": LLAMA32_SCALING, "tie_word_embeddings": True},
        1_235_814_400,
    ),
    "Mistral-7B-v0.1": (
        "mistral",
        sizes(32000, 4096, 14336, 32, 32, 8, 32768, rms_norm_eps=1e-5, sliding_window=4096),
        7_241_732_096,
    ),
    "Qwen2.5-7B": (
        "qwen2",
        sizes(152064, 3584, 18944, 28, 28, 4, 131072, rope_theta=1e6, rms_norm_eps=1e-6)
        | {"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28},
        7_615_616_512,
    ),
    "gemma-2-2b": (
        "gemma2",
        sizes(256000, 2304, 9216, 26, 8, 4, 8192, **GEMMA, sliding_window=4096)
        | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        2_614_341_888,
    ),
    "gemma-3-1b": (
        "gemma3_text",
        sizes(262144, 1152, 6912, 26, 4, 1, 32768, **GEMMA, sliding_window=512)
        | {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 6},
        999_885_952,
    ),
    "Phi-3-mini-128k": (
        "phi3",
        sizes(32064, 3072, 8192, 32, 32, 32, 131072, rms_norm_eps=1e-5, sliding_window=262144)
        | {"original_max_position_embeddings": 4096, "rope_scaling": PHI3_SCALING},
        3_821_079_552,
    ),
    "Phi-4": (
        "phi3",
        sizes(100352, 5120, 17920, 40, 40, 10, 16384, rope_theta=250000, sliding_window=None),
        14_659_507_200,
    ),
    "GLM-4-9B-0414": (
        "glm4",
        sizes(151552, 4096, 13696, 40, 32, 2, 32768, head_dim=128, partial_rotary_factor=0.5)
        | {"attention_bias": True, "rms_norm_eps": 1e-5},
        9_400_279_040,
    ),
    "OLMo-2-1124-7B": (
        "olmo2",
        sizes(100352, 4096, 11008, 32, 32, 32, 4096, rope_theta=5e5, rms_norm_eps=1e-6),
        7_298_617_344,
    ),
    "Olmo-3-1025-7B": (
        "olmo3",
        sizes(100278, 4096, 11008, 32, 32, 32, 65536, rope_theta=5e5, sliding_window=4096)
        | {"rope_scaling": OLMO3_SCALING, "rms_norm_eps": 1e-6},
        7_298_011_136,
    ),
    "SmolLM3-3B": (
        "smollm3",
        sizes(128256, 2048, 11008, 36, 16, 4, 65536, rope_theta=5e6, use_sliding_window=False)
        | {"no_rope_layers": [1, 1, 1, 0] * 9, "rms_norm_eps": 1e-6},
        3_075_098_624,
    ),
}


def read(name: str) -> ModelSpec:
    model_type, fields, _ = PUBLISHED[name]
    return spec_from_hf({"model_type": model_type, **fields})


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_are_the_published_number(name: str) -> None:
    assert Decoder(read(name), device="meta").num_parameters == PUBLISHED[name][2]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_written_back_it_is_the_same_model(name: str) -> None:
    assert spec_from_hf(spec_to_hf(read(name))) == read(name)


def mixers(name: str) -> list[AttentionSpec]:
    return [layer.mixer for layer in read(name).layers]


def test_windows_lie_where_the_families_put_them() -> None:
    assert {mixer.window for mixer in mixers("Mistral-7B-v0.1")} == {4096}
    assert {mixer.window for mixer in mixers("Qwen2.5-7B")} == {None}
    assert [mixer.window for mixer in mixers("gemma-2-2b")][:4] == [4096, None] * 2
    assert [mixer.window for mixer in mixers("gemma-3-1b")][:7] == [512] * 5 + [None, 512]
    assert [mixer.window for mixer in mixers("Olmo-3-1025-7B")][:5] == [4096] * 3 + [None, 4096]


def test_rotary_parameters_follow_the_kind_of_layer() -> None:
    gemma = mixers("gemma-3-1b")
    assert [mixer.rotary.theta for mixer in gemma[4:7]] == [1e4, 1e6, 1e4]
    olmo = mixers("Olmo-3-1025-7B")
    assert [mixer.rotary.scaling is None for mixer in olmo[:4]] == [True] * 3 + [False]
    smol = mixers("SmolLM3-3B")
    assert [mixer.rotary is None for mixer in smol[:4]] == [False] * 3 + [True]
    assert mixers("GLM-4-9B-0414")[0].rotary_dim == 64


def test_phi_3_of_long_context_uses_the_long_factors() -> None:
    scaling = mixers("Phi-3-mini-128k")[0].rotary.scaling
    assert (scaling.kind, scaling.factor, scaling.is_stretched) == ("longrope", 32.0, True)


def test_the_text_part_of_gemma_3_4b_is_read_from_the_few_fields_it_has() -> None:
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    spec = spec_from_hf({"model_type": "gemma3", "text_config": text, "eos_token_id": [1, 106]})
    assert Decoder(spec, device="meta").num_parameters == 3_880_263_168
    assert spec.eos_ids == (1, 106)
    assert [layer.mixer.rotary.scaling is None for layer in spec.layers[4:6]] == [True, False]
