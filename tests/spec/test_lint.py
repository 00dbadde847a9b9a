from __future__ import annotations

import dataclasses

import pytest

from weft.spec import (
    AttentionSpec,
    EncoderDecoderSpec,
    LayerSpec,
    LearnedPositions,
    MLPSpec,
    ModelSpec,
    MoESpec,
    zoo,
)
from weft.spec.lint import lint

GOOD = LayerSpec(AttentionSpec(8, 2, 64), MLPSpec(1408))


def model(layer: LayerSpec = GOOD, num_layers: int = 8, **fields: object) -> ModelSpec:
    usual = {"vocab_size": 32_000, "dim": 512, "tie_embeddings": True}
    return ModelSpec("llama", layers=(layer,) * num_layers, **{**usual, **fields})


def attention(**fields: object) -> LayerSpec:
    usual = {"num_heads": 8, "num_kv_heads": 2, "head_dim": 64}
    return LayerSpec(AttentionSpec(**{**usual, **fields}), MLPSpec(1408))


def test_a_usual_model_gets_no_remark() -> None:
    assert lint(model()) == ()
    assert lint(zoo.spec("llama-3.1-8b")) == ()


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (model(vocab_size=50_257), "vocab_size"),
        (model(dim=500), "dim"),
        (model(num_layers=1), "num_layers"),
        (model(num_layers=40), "num_layers"),
        (model(tie_embeddings=False), "tie_embeddings"),
        (model(positions=LearnedPositions(64)), "positions"),
        (model(attention(head_dim=60)), "head_dim"),
        (model(attention(head_dim=16)), "head_dim"),
        (model(attention(num_heads=32, num_kv_heads=1)), "num_kv_heads"),
        (model(attention(num_heads=6, num_kv_heads=3)), "num_kv_heads"),
        (model(attention(window=4096)), "window"),
        (model(LayerSpec(GOOD.mixer, MLPSpec(1400))), "ffn.hidden_dim"),
        (model(LayerSpec(GOOD.mixer, MLPSpec(512))), "ffn.hidden_dim"),
        (model(LayerSpec(GOOD.mixer, MoESpec(8, 6, MLPSpec(512)))), "ffn.top_k"),
        (model(LayerSpec(GOOD.mixer, MoESpec(12, 2, MLPSpec(512)))), "ffn.num_experts"),
        (model(LayerSpec(GOOD.mixer, MoESpec(8, 2, MLPSpec(500)))), "ffn.expert.hidden_dim"),
    ],
)
def test_an_unusual_size_is_named_with_its_value_and_advice(spec: ModelSpec, field: str) -> None:
    (remark,) = lint(spec)
    assert remark.field == field
    assert any(character.isdigit() for character in remark.message)
    assert remark.advice


def test_equal_layers_are_remarked_once() -> None:
    assert len(lint(zoo.spec("gpt2"))) == 1
    assert {remark.field for remark in lint(zoo.spec("t5-small"))} <= {"ffn.hidden_dim", "head_dim"}


def test_both_halves_of_an_encoder_decoder_are_read() -> None:
    spec = zoo.spec("t5-small")
    assert isinstance(spec, EncoderDecoderSpec)
    odd = dataclasses.replace(spec.decoder, vocab_size=50, dim=512)
    whole = dataclasses.replace(spec, decoder=odd, shared_embedding=False)
    assert "vocab_size" in {remark.field for remark in lint(whole)}
