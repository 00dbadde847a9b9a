"""Warnings about sizes that work but that hardware or experience speaks against.

Nothing here is an error: published models break each of these rules. The figures are those of the
kernels in use (tiles of 64 or 128 columns, head widths in multiples of 8) and of published models
(depth to width: Kaplan et al. 2020, arXiv:2001.08361, section 3.1; grouped queries: Ainslie et al.
2023, arXiv:2305.13245).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from weft.spec.attention import AttentionSpec
from weft.spec.encoder import EncoderDecoderSpec, EncoderSpec
from weft.spec.ffn import MLPSpec, MoESpec
from weft.spec.model import LayerSpec, ModelSpec
from weft.spec.rotary import LearnedPositions

TILE = 64
MAX_GROUP = 16
WIDTH_PER_LAYER = (16, 256)
FFN_RATIO = {True: (1.5, 6.0), False: (2.0, 8.0)}  # by gated
MAX_TABLE_SHARE = 0.5
MAX_EXPERT_SHARE = 0.5


class Remark(NamedTuple):
    """One remark.

    Attributes:
        field: What it is about.
        message: Value and rule.
        advice: What to do in a new model.
    """

    field: str
    message: str
    advice: str


def lint(spec: ModelSpec | EncoderSpec | EncoderDecoderSpec) -> tuple[Remark, ...]:
    """Return what is unusual about a model, each remark once.

    >>> from weft.spec import ModelShape
    >>> [w.field for w in lint(ModelShape(dim=256, num_layers=8).build(50_257))]
    ['vocab_size']
    """
    if isinstance(spec, EncoderDecoderSpec):
        return tuple(dict.fromkeys((*lint(spec.encoder), *lint(spec.decoder))))
    return tuple(dict.fromkeys(_model(spec)))


def _model(spec: ModelSpec | EncoderSpec) -> Iterator[Remark]:
    if spec.vocab_size % TILE:
        rounded = -(-spec.vocab_size // TILE) * TILE
        yield Remark(
            "vocab_size",
            f"{spec.vocab_size} is not a multiple of {TILE}; the output projection wastes a tile",
            f"pad the embedding to {rounded} rows",
        )
    if spec.dim % TILE:
        yield Remark("dim", f"{spec.dim} is not a multiple of {TILE}", f"use multiples of {TILE}")
    low, high = WIDTH_PER_LAYER
    ratio = spec.dim / spec.num_layers
    if not low <= ratio <= high:
        yield Remark(
            "num_layers",
            f"width {spec.dim} over {spec.num_layers} layers is {ratio:.0f}; most models have "
            f"{low} to {high}",
            "use fewer and wider layers" if ratio < low else "use more and narrower layers",
        )
    if isinstance(spec, ModelSpec):
        yield from _tables(spec)
    if isinstance(spec.positions, LearnedPositions) and (
        spec.positions.num_positions < spec.context_length
    ):
        yield Remark(
            "positions",
            f"{spec.positions.num_positions} learnt positions for a context of "
            f"{spec.context_length}",
            "lower context_length",
        )
    for layer in dict.fromkeys(spec.layers):
        yield from _layer(layer, spec)


def _tables(spec: ModelSpec) -> Iterator[Remark]:
    """A small model whose two tables are most of it would better share them."""
    tables = 2 * spec.vocab_size * spec.dim
    blocks = 12 * spec.num_layers * spec.dim**2
    if not spec.tie_embeddings and tables > MAX_TABLE_SHARE * (tables + blocks):
        share = tables / (tables + blocks)
        yield Remark(
            "tie_embeddings",
            f"embedding and head are about {share:.0%} of the parameters",
            "tie them, or choose a smaller vocabulary",
        )


def _layer(layer: LayerSpec, spec: ModelSpec | EncoderSpec) -> Iterator[Remark]:
    if isinstance(layer.mixer, AttentionSpec):
        yield from _attention(layer.mixer, spec)
    if isinstance(layer.ffn, MLPSpec):
        yield from _mlp(layer.ffn, spec.dim)
    elif isinstance(layer.ffn, MoESpec):
        yield from _experts(layer.ffn)


def _attention(mixer: AttentionSpec, spec: ModelSpec | EncoderSpec) -> Iterator[Remark]:
    if mixer.head_dim % 8:
        yield Remark(
            "head_dim",
            f"{mixer.head_dim} is not a multiple of 8; fused attention pads it",
            "use 64 or 128",
        )
    elif not 32 <= mixer.head_dim <= 256:
        yield Remark(
            "head_dim",
            f"{mixer.head_dim} is outside 32 to 256, for which fused attention is made",
            "use 64 or 128",
        )
    group = mixer.num_heads // mixer.num_kv_heads
    if group > MAX_GROUP:
        yield Remark(
            "num_kv_heads",
            f"{group} query heads share one key-value head",
            f"use at most {MAX_GROUP} where quality matters",
        )
    if group > 1 and mixer.num_kv_heads & (mixer.num_kv_heads - 1):
        yield Remark(
            "num_kv_heads",
            f"{mixer.num_kv_heads} key-value heads do not divide over 2, 4 or 8 devices",
            "use a power of two",
        )
    if mixer.window is not None and mixer.window > spec.context_length:
        yield Remark(
            "window",
            f"{mixer.window} is above the context of {spec.context_length}",
            "leave it out",
        )


def _mlp(ffn: MLPSpec, dim: int) -> Iterator[Remark]:
    yield from _width("ffn", ffn)
    low, high = FFN_RATIO[ffn.gated]
    ratio = ffn.hidden_dim / dim
    if not low <= ratio <= high:
        usual = "8/3" if ffn.gated else "4"
        yield Remark(
            "ffn.hidden_dim",
            f"{ffn.hidden_dim} is {ratio:.1f} times the width; {low:g} to {high:g} are usual",
            f"start from {usual} times the width",
        )


def _experts(ffn: MoESpec) -> Iterator[Remark]:
    yield from _width("ffn.expert", ffn.expert)
    if ffn.top_k > MAX_EXPERT_SHARE * ffn.num_experts:
        yield Remark(
            "ffn.top_k",
            f"{ffn.top_k} of {ffn.num_experts} experts per token leave little sparse",
            "use more experts or a lower top_k",
        )
    if ffn.num_experts & (ffn.num_experts - 1) and ffn.num_experts % 8:
        yield Remark(
            "ffn.num_experts",
            f"{ffn.num_experts} experts do not divide over 8 devices",
            "use a multiple of 8",
        )


def _width(name: str, ffn: MLPSpec) -> Iterator[Remark]:
    if ffn.hidden_dim % TILE:
        yield Remark(
            f"{name}.hidden_dim",
            f"{ffn.hidden_dim} is not a multiple of {TILE}; matrix products waste a tile",
            f"round it to {-(-ffn.hidden_dim // TILE) * TILE}",
        )
