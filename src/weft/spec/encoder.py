"""Bidirectional encoders and encoder-decoders, described with the layers of decoders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from weft.core.errors import ConfigError
from weft.spec.attention import AttentionSpec
from weft.spec.ffn import Activation
from weft.spec.model import LayerSpec, ModelSpec, NormSpec
from weft.spec.rotary import PositionSpec

PoolingKind = Literal["mean", "cls", "max", "last"]


@dataclass(frozen=True)
class PoolingSpec:
    """How the vectors of a text's tokens become one vector.

    Attributes:
        kind: Their mean or maximum, or the vector of the first ("cls") or last token.
        normalise: Divide by the Euclidean length, so that a dot product is the cosine.
    """

    kind: PoolingKind = "mean"
    normalise: bool = True


@dataclass(frozen=True)
class EncoderSpec:
    """A stack in which every token sees every token of its text.

    Attributes:
        family: Name of the family whose Hugging Face layout it has, such as "bert".
        vocab_size: Rows of the embedding (V).
        dim: Width of the residual stream (D).
        layers: One entry per block; attention is not causal, nothing attends to a memory.
        norm: The normalisation of every block and of the output.
        context_length: The longest text in tokens.
        pad_id: Padding token; never computed here, only written to config.json.
        positions: Position vectors added to the embedding; none where attention knows positions.
        embedding_scale: Factor on embeddings.
        embedding_norm: Normalise embeddings before the first block (BERT).
        final_norm: Whether a norm follows the last block (T5, not BERT).
        num_token_types: Rows of the table that tells segments of a text apart; 0 for no table.
        pooler: A linear map and tanh on the first token's vector (BERT).
        masked_lm: Activation of the head that predicts masked tokens; none for no such head.
    """

    family: str
    vocab_size: int
    dim: int
    layers: tuple[LayerSpec, ...]
    norm: NormSpec = field(default_factory=NormSpec)
    context_length: int = 512
    pad_id: int | None = None
    positions: PositionSpec | None = None
    embedding_scale: float | None = None
    embedding_norm: bool = False
    final_norm: bool = True
    num_token_types: int = 0
    pooler: bool = False
    masked_lm: Activation | None = None

    def __post_init__(self) -> None:
        if min(self.vocab_size, self.dim, self.context_length) < 1 or not self.layers:
            raise ConfigError(
                f"an encoder needs a vocabulary, a width, a context and layers; got "
                f"vocab_size={self.vocab_size}, dim={self.dim}, "
                f"context_length={self.context_length}, {len(self.layers)} layers"
            )
        for index, layer in enumerate(self.layers):
            mixer = layer.mixer
            if not isinstance(mixer, AttentionSpec) or mixer.causal or layer.cross is not None:
                raise ConfigError(
                    f"layer {index} of an encoder does not see the whole text alone",
                    fix="use AttentionSpec(causal=False) and no cross attention",
                )

    @property
    def num_layers(self) -> int:
        return len(self.layers)


@dataclass(frozen=True)
class EncoderDecoderSpec:
    """An encoder that reads a source and a decoder that writes a target.

    Attributes:
        encoder: Reads the source.
        decoder: Writes the target; its layers attend to the encoder's output (``cross``).
        start_id: The token every target begins with; it is fed, never predicted.
        shared_embedding: Source and target use the decoder's embedding.
        output_scale: Factor on the decoder's output before the head (T5 v1.0: D ** -0.5).
    """

    encoder: EncoderSpec
    decoder: ModelSpec
    start_id: int = 0
    shared_embedding: bool = True
    output_scale: float | None = None

    def __post_init__(self) -> None:
        without = [i for i, layer in enumerate(self.decoder.layers) if layer.cross is None]
        if without:
            raise ConfigError(
                f"layer {without[0]} of the decoder does not attend to the encoder",
                fix="give its LayerSpec a cross attention",
            )
        if self.shared_embedding and (
            self.encoder.vocab_size != self.decoder.vocab_size
            or self.encoder.dim != self.decoder.dim
        ):
            raise ConfigError(
                f"encoder ({self.encoder.vocab_size} x {self.encoder.dim}) and decoder "
                f"({self.decoder.vocab_size} x {self.decoder.dim}) cannot share an embedding",
                fix="set shared_embedding to false",
            )
        if not 0 <= self.start_id < self.decoder.vocab_size:
            raise ConfigError(
                f"start_id is {self.start_id}, outside the vocabulary of {self.decoder.vocab_size}"
            )

    @property
    def family(self) -> str:
        """Name of the family whose Hugging Face layout it has."""
        return self.decoder.family

    @property
    def vocab_size(self) -> int:
        """Rows of the target's embedding (V)."""
        return self.decoder.vocab_size
