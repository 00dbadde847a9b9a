"""Tiny encoders and encoder-decoders with random weights."""

from __future__ import annotations

import torch

from weft.models.encoder import Encoder
from weft.models.encoder_decoder import EncoderDecoder
from weft.spec import EncoderDecoderSpec, EncoderSpec
from weft.spec.families.encoders import encoder_decoder_from_hf, encoder_from_hf

VOCAB_SIZE = 61
BERT = {
    "model_type": "bert", "vocab_size": VOCAB_SIZE, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 40,
    "pad_token_id": 0,
}  # fmt: skip
T5 = {
    "model_type": "t5", "vocab_size": VOCAB_SIZE, "d_model": 32, "d_kv": 8, "d_ff": 48,
    "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4, "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16,
    "eos_token_id": 1, "pad_token_id": 0, "scale_decoder_outputs": False,
}  # fmt: skip


def bert_spec(**changes: object) -> EncoderSpec:
    return encoder_from_hf({**BERT, **changes})


def t5_spec(**changes: object) -> EncoderDecoderSpec:
    return encoder_decoder_from_hf({**T5, **changes})


def tiny_encoder(**changes: object) -> Encoder:
    return scattered(Encoder(bert_spec(**changes), seed=1)).eval()


def tiny_encoder_decoder(**changes: object) -> EncoderDecoder:
    return scattered(EncoderDecoder(t5_spec(**changes), seed=1)).eval()


def scattered(model: torch.nn.Module) -> torch.nn.Module:
    """Move every parameter, so that norms and biases matter and outputs differ clearly."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def texts_of(seed: int, lengths: tuple[int, ...]) -> list[list[int]]:
    """Return random texts without special tokens (ids below 2)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, VOCAB_SIZE, (n,), generator=generator).tolist() for n in lengths]


def flat(texts: list[list[int]]) -> torch.Tensor:
    return torch.tensor([token for text in texts for token in text])
