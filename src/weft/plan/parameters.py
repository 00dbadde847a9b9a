"""How many numbers a model learns, by part."""

from __future__ import annotations

from dataclasses import dataclass

from weft.spec import AttentionSpec, MLPSpec, ModelSpec


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by part; a tied head counts once, in the embedding.

    Attributes:
        embedding: The token embedding, V x D.
        mixers: All attention projections and head norms.
        ffns: All feed-forward parts.
        norms: Block norms and the final norm.
        head: The output projection, 0 when tied.
    """

    embedding: int
    mixers: int
    ffns: int
    norms: int
    head: int

    @property
    def total(self) -> int:
        return self.embedding + self.mixers + self.ffns + self.norms + self.head

    @property
    def matmul(self) -> int:
        """Parameters that multiply every token, less the output projection."""
        return self.mixers + self.ffns


def count_parameters(spec: ModelSpec) -> ParameterCount:
    """Count the parameters of a model.

    >>> from weft.spec import ModelShape
    >>> count_parameters(ModelShape(dim=64, num_layers=1).build(100)).embedding
    6400
    """
    embedding = spec.vocab_size * spec.dim
    return ParameterCount(
        embedding=embedding,
        mixers=sum(attention_parameters(layer.mixer, spec.dim) for layer in spec.layers),
        ffns=sum(mlp_parameters(layer.ffn, spec.dim) for layer in spec.layers),
        norms=(2 * spec.num_layers + 1) * spec.dim,
        head=0 if spec.tie_embeddings else embedding,
    )


def attention_parameters(spec: AttentionSpec, dim: int) -> int:
    """Count merged QKV, output projection, biases and head norms."""
    qkv_dim = spec.query_dim + 2 * spec.kv_dim
    count = dim * qkv_dim + spec.query_dim * dim
    count += qkv_dim * spec.qkv_bias + dim * spec.out_bias
    return count + 2 * spec.head_dim * (spec.qk_norm == "head")


def mlp_parameters(spec: MLPSpec, dim: int) -> int:
    """Count the up (and gate) and down projections and their biases."""
    inner = spec.hidden_dim * (2 if spec.gated else 1)
    return dim * inner + spec.hidden_dim * dim + (inner + dim) * spec.bias
