"""Key maps of encoders and encoder-decoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from weft.models.families import bert, t5
from weft.models.hf_keys import Rule
from weft.spec import EncoderDecoderSpec, EncoderSpec


class EncoderKeys(NamedTuple):
    """The tensors of an encoder family's checkpoints.

    Attributes:
        rules: Our tensors and theirs, from the specification and the prefix of their names.
        prefix: What names begin with where the encoder is part of a larger model.
        first: A tensor every checkpoint has; it shows whether names have the prefix.
        pooler: A tensor that checkpoints with a pooler have.
        ignored: Patterns of names that files may have and nobody needs.
    """

    rules: Callable[[EncoderSpec, str], tuple[Rule, ...]]
    prefix: str
    first: str
    pooler: str
    ignored: tuple[str, ...]


class EncoderDecoderKeys(NamedTuple):
    """The tensors of an encoder-decoder family's checkpoints.

    Attributes:
        rules: Our tensors and theirs, from the specification.
        ignored: Patterns of names that files may have and nobody needs.
    """

    rules: Callable[[EncoderDecoderSpec], tuple[Rule, ...]]
    ignored: tuple[str, ...]


ENCODER_KEYS: dict[str, EncoderKeys] = {
    "bert": EncoderKeys(
        bert.rules,
        "bert.",
        bert.EMBEDDINGS,
        "pooler.dense.weight",
        ("*embeddings.position_ids", "cls.*", "*pooler.*"),
    ),
}
ENCODER_DECODER_KEYS: dict[str, EncoderDecoderKeys] = {
    # The embedding may be stored once more for each of its users.
    "t5": EncoderDecoderKeys(
        t5.rules,
        (
            "encoder.embed_tokens.weight",
            "decoder.embed_tokens.weight",
            "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
        ),
    ),
}
