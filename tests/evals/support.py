"""A tiny model and a tokenizer whose merges cross word borders."""

from __future__ import annotations

import functools

import torch

from weft.engine.config import EngineConfig
from weft.models.decoder import Decoder
from weft.spec import ModelShape
from weft.text.tokenizer import Tokenizer
from weft.text.train import train_bpe

ENGINE = EngineConfig(kv_tokens=4096, max_num_sequences=64, max_tokens_per_step=512)


@functools.cache
def tokenizer() -> Tokenizer:
    texts = ["What is 17 + 25? Return the sum of the numbers, or the number of items."] * 5
    return train_bpe(texts, 320)


def tiny_model(seed: int = 0, context_length: int = 128) -> Decoder:
    tok = tokenizer()
    shape = ModelShape(
        dim=32, num_layers=2, num_heads=2, num_kv_heads=1, context_length=context_length
    )
    return Decoder(shape.build(tok.vocab_size, eos_ids=tok.eos_ids), seed=seed)


def uniform_model(context_length: int = 128) -> Decoder:
    """A model that gives every token the same probability."""
    model = tiny_model(context_length=context_length)
    with torch.no_grad():
        model.embed.weight.zero_()  # tied: all logits are 0
    return model
