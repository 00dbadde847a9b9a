"""How many numbers a model learns, by part, from its specification alone.

Matrices come from ``weft.plan.matrices``; what is no matrix (biases, norms, convolutions, decays)
is counted here, one function per description. Tests hold the sums equal to the real modules.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import singledispatch

from weft.plan.matrices import layer_matrices
from weft.spec import (
    AttentionSpec,
    ChannelMixSpec,
    EncoderDecoderSpec,
    EncoderSpec,
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    LayerSpec,
    LearnedPositions,
    LinearAttentionSpec,
    Mamba2Spec,
    MambaSpec,
    MatrixRWKVSpec,
    MixerSpec,
    MLASpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
    NormSpec,
    RWKVSpec,
    ShortConvSpec,
)

AnyModelSpec = ModelSpec | EncoderSpec | EncoderDecoderSpec


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by part; a tied head counts once, in the embedding.

    Attributes:
        embedding: The token embedding, V x D.
        mixers: All mixers: projections, head norms, convolutions; cross attention too.
        ffns: All feed-forward parts.
        norms: Block norms, embedding norm and final norm.
        head: The output projection, 0 when tied.
        positions: Learnt tables of positions, token types and distances.
        idle: Expert parameters that one token does not use.
        buffers: Numbers a checkpoint holds that no gradient changes (correction biases); not in
            ``total``.
        mtp: Multi-token prediction modules; no token meets them but in training.
    """

    embedding: int
    mixers: int
    ffns: int
    norms: int
    head: int
    positions: int = 0
    idle: int = 0
    buffers: int = 0
    mtp: int = 0

    @property
    def total(self) -> int:
        layers = self.mixers + self.ffns + self.norms
        return self.embedding + self.positions + layers + self.head + self.mtp

    @property
    def active(self) -> int:
        """Parameters that one token meets, tables and head included."""
        return self.total - self.idle - self.mtp

    @property
    def matmul(self) -> int:
        """Parameters that multiply every token, less the output projection."""
        return self.mixers + self.ffns

    def __add__(self, other: ParameterCount) -> ParameterCount:
        return ParameterCount(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))


def _values(count: ParameterCount) -> tuple[int, ...]:
    return tuple(getattr(count, name) for name in count.__dataclass_fields__)


@singledispatch
def count_parameters(spec: AnyModelSpec) -> ParameterCount:
    """Count the parameters of a model.

    >>> from weft.spec import ModelShape
    >>> count_parameters(ModelShape(dim=64, num_layers=1).build(100)).embedding
    6400
    """
    raise TypeError(f"{type(spec).__name__} describes no model")


@count_parameters.register
def _(spec: ModelSpec) -> ParameterCount:
    table = spec.vocab_size * spec.dim
    count = _stack(spec, embedding=table, head=0 if spec.tie_embeddings else table)
    if not spec.num_mtp_layers:
        return count
    last = layer_parameters(spec.layers[-1], spec.dim, spec.norm)
    buffers = count.buffers + spec.num_mtp_layers * last.buffers
    return replace(count, mtp=mtp_parameters(spec), buffers=buffers)


@count_parameters.register
def _(spec: EncoderSpec) -> ParameterCount:
    head = (spec.dim * spec.dim + spec.dim) * spec.pooler
    if spec.masked_lm is not None:
        head += spec.dim * spec.dim + spec.dim + norm_parameters(spec.norm, spec.dim)
        head += spec.vocab_size
    return _stack(spec, embedding=spec.vocab_size * spec.dim, head=head)


@count_parameters.register
def _(spec: EncoderDecoderSpec) -> ParameterCount:
    encoder = count_parameters(spec.encoder)
    if spec.shared_embedding:
        encoder += ParameterCount(-encoder.embedding, 0, 0, 0, 0)
    return encoder + count_parameters(spec.decoder)


def _stack(spec: ModelSpec | EncoderSpec, *, embedding: int, head: int) -> ParameterCount:
    layers = Counter(spec.layers)
    counts = {layer: layer_parameters(layer, spec.dim, spec.norm) for layer in layers}
    num_norms = spec.embedding_norm + spec.final_norm
    first = ParameterCount(
        embedding=embedding,
        mixers=0,
        ffns=0,
        norms=num_norms * norm_parameters(spec.norm, spec.dim),
        head=head,
        positions=_tables(spec),
    )
    return sum((_times(counts[layer], n) for layer, n in layers.items()), first)


def _times(count: ParameterCount, factor: int) -> ParameterCount:
    return ParameterCount(*(value * factor for value in _values(count)))


def _tables(spec: ModelSpec | EncoderSpec) -> int:
    count = 0
    if isinstance(spec.positions, LearnedPositions):
        count += spec.positions.num_positions * spec.dim
    if isinstance(spec, EncoderSpec):
        count += spec.num_token_types * spec.dim
    mixers = [layer.mixer for layer in spec.layers if isinstance(layer.mixer, AttentionSpec)]
    relative = [mixer for mixer in mixers if mixer.relative is not None]
    if relative and relative[0].relative is not None:  # one table for the whole stack
        count += relative[0].relative.num_buckets * relative[0].num_heads
    return count


def layer_parameters(layer: LayerSpec, dim: int, norm: NormSpec) -> ParameterCount:
    """Count one block."""
    matrices = layer_matrices(layer, dim)
    weights = {
        branch: sum(matrix.weights for matrix in matrices if matrix.branch == branch)
        for branch in ("mixer", "ffn")
    }
    mixers = weights["mixer"] + other_parameters(layer.mixer, dim, norm)
    branches = 1
    if layer.cross is not None:
        mixers += mixer_parameters(layer.cross, dim, norm)
        branches += 1
    ffns = buffers = idle = 0
    if layer.ffn is not None:
        ffns = weights["ffn"] + other_parameters(layer.ffn, dim, norm)
        branches += 1
        if isinstance(layer.ffn, MoESpec):
            idle = _idle(layer.ffn, dim)
            buffers = layer.ffn.num_experts * layer.ffn.router.correction_bias
    num_norms = branches * (2 if layer.norms == "sandwich" else 1)
    return ParameterCount(
        embedding=0,
        mixers=mixers,
        ffns=ffns,
        norms=num_norms * norm_parameters(norm, dim),
        head=0,
        idle=idle,
        buffers=buffers,
    )


def mixer_parameters(mixer: MixerSpec, dim: int, norm: NormSpec) -> int:
    """Count one mixer.

    >>> mixer_parameters(AttentionSpec(4, 2, 8, qk_norm="head"), 32, NormSpec())
    3088
    """
    layer = LayerSpec(mixer, None)
    matrices = layer_matrices(layer, dim)
    return sum(matrix.weights for matrix in matrices) + other_parameters(mixer, dim, norm)


def mtp_parameters(spec: ModelSpec) -> int:
    """Count the multi-token prediction modules, less the embedding and head they share.

    Each is one more block of the last kind, the projection of two vectors to one, a norm for each
    of the two and one before the head (DeepSeek-V3, arXiv:2412.19437, section 2.2).
    """
    block = layer_parameters(spec.layers[-1], spec.dim, spec.norm).total
    norms = 3 * norm_parameters(spec.norm, spec.dim)
    return spec.num_mtp_layers * (block + 2 * spec.dim * spec.dim + norms)


def norm_parameters(norm: NormSpec, width: int) -> int:
    """Count one norm."""
    return width * (2 if norm.kind == "layer" and norm.bias else 1)


def _idle(ffn: MoESpec, dim: int) -> int:
    if ffn.router.kind in ("soft", "expert_choice"):
        return 0  # every expert works on some mixture, or on as many tokens as any other
    return (ffn.num_experts - ffn.top_k) * _expert(ffn, dim)


def _expert(ffn: MoESpec, dim: int) -> int:
    width, expert = ffn.latent_dim or dim, ffn.expert
    inner = expert.hidden_dim * (2 if expert.gated else 1)
    return width * inner + expert.hidden_dim * width + _mlp_bias(expert, width)


def _mlp_bias(ffn: MLPSpec, dim: int) -> int:
    return (ffn.hidden_dim * (2 if ffn.gated else 1) + dim) * ffn.bias


@singledispatch
def other_parameters(part: object, dim: int, norm: NormSpec) -> int:
    """Count the parameters of a mixer or feed-forward part that are in no matrix."""
    raise TypeError(f"no parameters are known for {type(part).__name__}")


@other_parameters.register
def _(part: AttentionSpec, dim: int, norm: NormSpec) -> int:
    count = sum(part.qkv_rows) * part.qkv_bias + dim * part.out_bias + part.num_heads * part.sinks
    shares = part.kv_source is not None
    if part.qk_norm == "head":
        count += norm_parameters(norm, part.head_dim) * (1 if shares else 2)
    elif part.qk_norm == "all_heads":
        count += norm_parameters(norm, part.query_dim)
        count += 0 if shares else norm_parameters(norm, part.kv_dim)
    return count


@other_parameters.register
def _(part: MLASpec, dim: int, norm: NormSpec) -> int:
    count = norm_parameters(norm, part.kv_latent_dim) + (sum(part.down_rows) + dim) * part.bias
    if part.query_latent_dim is not None:
        count += norm_parameters(norm, part.query_latent_dim)
    if part.indexer is not None:
        count += 2 * part.indexer.head_dim  # a LayerNorm with bias, whatever the model's norm
    return count


@other_parameters.register
def _(part: LinearAttentionSpec, dim: int, norm: NormSpec) -> int:
    # The bias of a decay that depends on the token; the gated norm of a head.
    bias = 0 if part.gate_rank is None else part.num_heads * part.key_dim
    return bias + part.value_dim * part.output_gate


@other_parameters.register
def _(part: GatedDeltaNetSpec, dim: int, norm: NormSpec) -> int:
    # Convolution, decay and step per value head, the gated norm of a head.
    return part.conv_dim * part.conv_kernel + 2 * part.num_value_heads + part.value_dim


@other_parameters.register
def _(part: KimiDeltaSpec, dim: int, norm: NormSpec) -> int:
    inner = part.num_heads * part.head_dim
    return 3 * inner * part.conv_kernel + part.num_heads + inner + part.head_dim


@other_parameters.register
def _(part: MambaSpec, dim: int, norm: NormSpec) -> int:
    # Convolution; rates, skip and step of each channel.
    count = part.inner_dim * (part.conv_kernel + part.conv_bias + part.state_dim + 2)
    return count + (2 * part.inner_dim + dim) * part.bias


@other_parameters.register
def _(part: Mamba2Spec, dim: int, norm: NormSpec) -> int:
    count = part.conv_dim * (part.conv_kernel + part.conv_bias)
    count += 3 * part.num_heads + part.inner_dim  # decay, skip and step per head; gated norm
    return count + (part.inner_dim + part.conv_dim + part.num_heads + dim) * part.bias


@other_parameters.register
def _(part: RWKVSpec, dim: int, norm: NormSpec) -> int:
    return 2 * part.attention_dim + 3 * dim  # decay and bonus; the shift of key, value, receptance


@other_parameters.register
def _(part: MatrixRWKVSpec, dim: int, norm: NormSpec) -> int:
    count = 4 * part.inner_dim  # decay and bonus; weight and bias of the norm
    return count + (4 if part.shift_rank is None else 5 + 1) * dim  # shares of the previous token


@other_parameters.register
def _(part: ShortConvSpec, dim: int, norm: NormSpec) -> int:
    return part.dim * part.kernel + (part.dim + 3 * part.dim + dim) * part.bias


@other_parameters.register
def _(part: MLPSpec, dim: int, norm: NormSpec) -> int:
    return _mlp_bias(part, dim)


@other_parameters.register
def _(part: MoESpec, dim: int, norm: NormSpec) -> int:
    router = part.router
    count = part.num_experts * (router.bias + _mlp_bias(part.expert, part.latent_dim or dim))
    if router.noise > 0 and router.noise_kind == "learnt":  # a second router, used in training
        count += part.num_experts * dim
    return count + (0 if part.shared is None else _mlp_bias(part.shared, dim))


@other_parameters.register
def _(part: ChannelMixSpec, dim: int, norm: NormSpec) -> int:
    return 2 * dim  # the shift of key and receptance
