from __future__ import annotations

from dataclasses import replace

import pytest

from weft.core.errors import CheckpointError, UnsupportedError
from weft.spec import (
    AttentionSpec,
    LayerSpec,
    MLPSpec,
    ModelShape,
    ModelSpec,
    RotaryScaling,
    RotarySpec,
)
from weft.spec.families import spec_from_hf, spec_to_hf

LLAMA_3_1_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
}


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_there_and_back(family: str) -> None:
    spec = ModelShape(family=family).build(300, bos_id=0, eos_ids=(1, 2), pad_id=3)
    assert spec_from_hf(spec_to_hf(spec)) == spec


def test_llama_3_1_is_read_with_its_rope_scaling() -> None:
    spec = spec_from_hf(LLAMA_3_1_8B)
    rotary = spec.layers[0].mixer.rotary
    assert rotary is not None
    assert rotary.theta == 500_000.0
    assert rotary.scaling is not None
    assert rotary.scaling.factor == 8.0
    assert spec.eos_ids == (128001, 128008, 128009)
    assert spec_from_hf(spec_to_hf(spec)) == spec


def test_new_style_rope_parameters_are_read() -> None:
    config = {k: v for k, v in LLAMA_3_1_8B.items() if not k.startswith("rope")}
    config["rope_parameters"] = {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}
    rotary = spec_from_hf(config).layers[0].mixer.rotary
    assert rotary is not None
    assert rotary.theta == 5e5
    assert rotary.scaling is not None
    assert rotary.scaling.kind == "linear"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model_type": "lama"}, UnsupportedError, "did you mean 'llama'"),
        ({"hidden_act": "maxout"}, UnsupportedError, "hidden_act"),
        ({"rope_scaling": {"rope_type": "spiral", "factor": 2.0}}, UnsupportedError, "'spiral'"),
        ({"rope_scaling": {"rope_type": "linear"}}, CheckpointError, "factor"),
        ({"hidden_size": "wide"}, CheckpointError, "hidden_size"),
        ({"vocab_size": None}, CheckpointError, "vocab_size"),
    ],
)
def test_what_cannot_be_expressed_is_named(
    change: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        spec_from_hf({**LLAMA_3_1_8B, **change})


def test_a_model_that_no_family_file_can_hold_is_refused() -> None:
    wide = LayerSpec(AttentionSpec(2, 2, 16), MLPSpec(64))
    narrow = LayerSpec(AttentionSpec(2, 2, 16), MLPSpec(32))
    with pytest.raises(UnsupportedError, match=r"layers\[1\].ffn.hidden_dim is 32, not 64"):
        spec_to_hf(ModelSpec("llama", 10, 32, (wide, narrow)))
    window = LayerSpec(AttentionSpec(2, 2, 16, window=8), MLPSpec(64))
    with pytest.raises(UnsupportedError, match=r"mixer.window is 8, not None"):
        spec_to_hf(ModelSpec("llama", 10, 32, (window,)))
    interleaved = AttentionSpec(2, 2, 16, rotary=RotarySpec(layout="interleaved"))
    with pytest.raises(UnsupportedError, match=r"rotary.layout is 'interleaved', not 'half'"):
        spec_to_hf(ModelSpec("llama", 10, 32, (LayerSpec(interleaved, MLPSpec(64)),)))
    with pytest.raises(UnsupportedError, match="did you mean"):
        spec_to_hf(ModelSpec("llamas", 10, 32, (wide,)))
    stretched = RotarySpec(scaling=RotaryScaling("ntk", 4.0))
    with pytest.raises(UnsupportedError, match="rope type 'ntk'"):
        spec_to_hf(
            ModelSpec("llama", 10, 32, (LayerSpec(replace(ATTENTION, rotary=stretched), MLP),))
        )


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "gemma2", "gemma3_text", "olmo3", "smollm3"])
def test_a_kind_of_layer_that_is_not_known_is_refused_by_name(family: str) -> None:
    config = {
        **{name: value for name, value in LLAMA_3_1_8B.items() if not name.startswith("rope")},
        "model_type": family,
        "use_sliding_window": True,
        "sliding_window": 128,
        "layer_types": ["full_attention"] * 31 + ["linear_attention"],
    }
    with pytest.raises(UnsupportedError, match="layer_types has 'linear_attention'"):
        spec_from_hf(config)
    with pytest.raises(CheckpointError, match="3 entries, one for each of 32 layers"):
        spec_from_hf({**config, "layer_types": ["full_attention"] * 3})


ATTENTION, MLP = AttentionSpec(2, 2, 16), MLPSpec(64)
DENSE = {"llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "glm", "glm4", "olmo2", "olmo3"}


@pytest.mark.parametrize("family", sorted(DENSE | {"gemma2", "gemma3_text", "gpt2"}))
@pytest.mark.parametrize(
    "change",
    [{"sinks": True}, {"output_gate": True}, {"alibi": True}, {"causal": False}, {"kv_source": 0}],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_the_mathematics_is_never_lost_in_writing(family: str, change: dict) -> None:
    odd = replace(ATTENTION, **change)
    layers = (LayerSpec(ATTENTION, MLP), LayerSpec(odd, MLP))
    with pytest.raises(UnsupportedError):
        spec_to_hf(ModelSpec(family, 10, 32, layers))
