"""Encoders and encoder-decoders."""

from __future__ import annotations

from tests.parity.harness import Case

BERT_SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 64,
}
T5_SIZES = {
    "d_model": 48,
    "d_kv": 16,
    "d_ff": 80,
    "num_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "decoder_start_token_id": 0,
}
ENCODERS = {
    "bert": Case("Bert", BERT_SIZES, sample=True, model="BertModel"),
    "bert-relu": Case("Bert", {**BERT_SIZES, "hidden_act": "relu"}, model="BertModel"),
    "bert-masked-lm": Case("Bert", BERT_SIZES, model="BertForMaskedLM"),
    "bert-one-segment": Case("Bert", {**BERT_SIZES, "type_vocab_size": 1}, model="BertModel"),
}
T5 = "T5ForConditionalGeneration"
ENCODER_DECODERS = {
    "t5-v1.0": Case("T5", T5_SIZES, sample=True, model=T5, atol=2e-5),
    "t5-v1.1": Case(
        "T5",
        {**T5_SIZES, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        model=T5,
        atol=2e-5,
    ),
    "t5-gated-silu": Case(
        "T5", {**T5_SIZES, "feed_forward_proj": "gated-silu"}, model=T5, atol=2e-5
    ),
    "t5-own-head": Case(
        "T5",
        {**T5_SIZES, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        model=T5,
        atol=2e-5,
    ),
}
