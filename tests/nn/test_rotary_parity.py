"""Rotary frequencies and multi-axis tables against transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from weft.nn.rotary import inverse_frequencies, rotary_tables
from weft.spec import RotarySpec
from weft.spec.families.fields import Fields

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

HEAD_DIM = 64
CONTEXT = 4096
FACTORS = [1.0 + 0.1 * pair for pair in range(HEAD_DIM // 2)]
RULES: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 1024},
    "yarn-deepseek": {
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "mscale": 0.707,
        "mscale_all_dim": 1.0,
        "beta_fast": 32,
        "beta_slow": 1,
    },
    "yarn-gpt-oss": {
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "truncate": False,
        "beta_fast": 20.0,
        "beta_slow": 2.0,
    },
    "yarn-factor": {
        "factor": 2.0,
        "original_max_position_embeddings": 512,
        "attention_factor": 1.3,
    },
    "longrope": {
        "short_factor": FACTORS,
        "long_factor": [3.0 * factor for factor in FACTORS],
        "original_max_position_embeddings": 1024,
    },
    "longrope-factor": {
        "factor": 6.0,
        "attention_factor": 1.19,
        "short_factor": FACTORS,
        "long_factor": [3.0 * factor for factor in FACTORS],
        "original_max_position_embeddings": 1024,
    },
}


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("partial", [1.0, 0.5])
@pytest.mark.parametrize("name", sorted(RULES))
def test_frequencies_and_temperature_are_theirs(name: str, partial: float, theta: float) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = name.partition("-")[0]
    pairs = int(HEAD_DIM * partial) // 2
    parameters = {
        "rope_type": kind,
        "rope_theta": theta,
        "partial_rotary_factor": partial,
        **{
            key: value[:pairs] if isinstance(value, list) else value
            for key, value in RULES[name].items()
        },
    }
    config = transformers.LlamaConfig(
        hidden_size=4 * HEAD_DIM,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        rope_parameters=dict(parameters),
    )
    expected_R, factor = ROPE_INIT_FUNCTIONS[kind](config, seq_len=CONTEXT)
    fields = Fields({"max_position_embeddings": CONTEXT, "rope_parameters": parameters})
    spec = fields.rotary(head_dim=HEAD_DIM)
    width = HEAD_DIM if spec.dim is None else spec.dim
    torch.testing.assert_close(inverse_frequencies(spec, width), expected_R, rtol=1e-6, atol=0)
    assert spec.scaling is not None
    assert spec.scaling.table_factor == pytest.approx(factor, rel=1e-12)


def their_tables(model_type: str, positions_AT: torch.Tensor, sections: list[int]) -> Any:
    from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen2
    from transformers.models.qwen3_vl import modeling_qwen3_vl as qwen3

    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": sections}
    sizes = {"hidden_size": 256, "num_attention_heads": 2, "rope_parameters": rope}
    if model_type == "qwen2":
        module = qwen2.Qwen2VLRotaryEmbedding(transformers.Qwen2VLConfig(**sizes).text_config)
    else:
        config = qwen3.Qwen3VLTextConfig(head_dim=128, **sizes)
        module = qwen3.Qwen3VLTextRotaryEmbedding(config)
    cos, sin = module(torch.zeros(1), positions_AT.unsqueeze(1))
    return cos[0, :, : cos.shape[-1] // 2], sin[0, :, : sin.shape[-1] // 2]


@pytest.mark.parametrize(("model_type", "interleaved"), [("qwen2", False), ("qwen3", True)])
def test_multi_axis_tables_are_those_of_qwen_vl(model_type: str, interleaved: bool) -> None:
    sections = (24, 20, 20) if interleaved else (16, 24, 24)
    positions_AT = torch.randint(1000, (3, 40), generator=torch.Generator().manual_seed(0))
    theirs = their_tables(model_type, positions_AT, list(sections))
    spec = RotarySpec(theta=5e6, sections=sections, interleaved_sections=interleaved)
    for expected, actual in zip(theirs, rotary_tables(spec, 128, positions_AT), strict=True):
        if expected.shape != actual.shape:
            expected = expected[..., : actual.shape[-1]]
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)
