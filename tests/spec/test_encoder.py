from __future__ import annotations

import dataclasses

import pytest

from weft.core.errors import ConfigError, UnsupportedError
from weft.spec import (
    AttentionSpec,
    EncoderDecoderSpec,
    EncoderSpec,
    LayerSpec,
    MLPSpec,
    ModelSpec,
    NormSpec,
)
from weft.spec.families.encoders import (
    encoder_decoder_from_hf,
    encoder_decoder_to_hf,
    encoder_from_hf,
    encoder_to_hf,
)

BERT = {
    "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 30522,
    "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
    "intermediate_size": 1536, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512, "type_vocab_size": 2, "pad_token_id": 0,
    "position_embedding_type": "absolute",
}  # fmt: skip
T5_SMALL = {
    "model_type": "t5", "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048,
    "num_layers": 6, "num_heads": 8, "relative_attention_num_buckets": 32,
    "layer_norm_epsilon": 1e-6, "is_encoder_decoder": True, "n_positions": 512,
    "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
T5_V1_1 = {
    **T5_SMALL, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip
TWO_WAYS = AttentionSpec(2, 2, 8, causal=False)
LAYER = LayerSpec(TWO_WAYS, MLPSpec(16))


def test_bert_config_reads_back_as_it_was_written():
    spec = encoder_from_hf(BERT)
    assert (spec.dim, spec.num_layers, spec.layers[0].norms) == (384, 6, "post")
    assert spec.norm == NormSpec(eps=1e-12, kind="layer", bias=True)
    assert encoder_from_hf(encoder_to_hf(spec)) == spec


@pytest.mark.parametrize("config", [T5_SMALL, T5_V1_1], ids=["v1.0", "v1.1"])
def test_t5_config_reads_back_as_it_was_written(config):
    spec = encoder_decoder_from_hf(config)
    assert encoder_decoder_from_hf(encoder_decoder_to_hf(spec)) == spec
    assert all(layer.mixer.softmax_scale == 1.0 for layer in spec.decoder.layers)


def test_t5_versions_differ_in_head_scale_and_feed_forward_part():
    old, new = encoder_decoder_from_hf(T5_SMALL), encoder_decoder_from_hf(T5_V1_1)
    assert (old.decoder.tie_embeddings, old.output_scale) == (True, 512**-0.5)
    assert (new.decoder.tie_embeddings, new.output_scale) == (False, None)
    assert old.encoder.layers[0].ffn == MLPSpec(2048, "relu", gated=False)
    assert new.encoder.layers[0].ffn == MLPSpec(1024, "gelu_tanh", gated=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("hidden_act", "mish"),
        ("tie_word_embeddings", False),
    ],
)
def test_a_field_that_changes_the_mathematics_is_refused_by_name(name: str, value: object):
    with pytest.raises(UnsupportedError, match=name):
        encoder_from_hf({**BERT, name: value})


def test_unknown_feed_forward_part_of_t5_is_refused():
    with pytest.raises(UnsupportedError, match="feed_forward_proj"):
        encoder_decoder_from_hf({**T5_SMALL, "feed_forward_proj": "gated-mish"})


def test_unknown_model_type_names_the_nearest_one():
    with pytest.raises(UnsupportedError) as caught:
        encoder_from_hf({**BERT, "model_type": "berd"})
    assert "bert" in str(caught.value.fix)


def test_a_model_that_a_family_cannot_express_is_not_written():
    spec = encoder_from_hf(BERT)
    with pytest.raises(UnsupportedError, match="final_norm"):
        encoder_to_hf(dataclasses.replace(spec, final_norm=True))
    t5 = encoder_decoder_from_hf(T5_SMALL)
    with pytest.raises(UnsupportedError, match="output_scale"):
        encoder_decoder_to_hf(dataclasses.replace(t5, output_scale=2.0))


def test_an_encoder_sees_its_whole_text():
    causal = dataclasses.replace(LAYER, mixer=dataclasses.replace(TWO_WAYS, causal=True))
    with pytest.raises(ConfigError, match="layer 1"):
        EncoderSpec("bert", 10, 16, (LAYER, causal))
    with pytest.raises(ConfigError, match="layer 0"):
        EncoderSpec("bert", 10, 16, (dataclasses.replace(LAYER, cross=TWO_WAYS),))


def test_every_decoder_layer_attends_to_the_encoder():
    encoder = EncoderSpec("t5", 10, 16, (LAYER,))
    decoder = ModelSpec("t5", 10, 16, (LayerSpec(AttentionSpec(2, 2, 8), MLPSpec(16)),))
    with pytest.raises(ConfigError, match="layer 0"):
        EncoderDecoderSpec(encoder, decoder)


def test_an_embedding_is_shared_only_between_equal_sizes():
    cross = LayerSpec(AttentionSpec(2, 2, 8), MLPSpec(16), cross=TWO_WAYS)
    encoder, decoder = EncoderSpec("t5", 12, 16, (LAYER,)), ModelSpec("t5", 10, 16, (cross,))
    with pytest.raises(ConfigError, match="cannot share"):
        EncoderDecoderSpec(encoder, decoder)
    assert EncoderDecoderSpec(encoder, decoder, shared_embedding=False).vocab_size == 10
    with pytest.raises(ConfigError, match="start_id"):
        EncoderDecoderSpec(encoder, decoder, shared_embedding=False, start_id=10)
