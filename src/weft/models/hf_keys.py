"""Two-way maps between our parameter names and Hugging Face's, as data.

One ``Rule`` says: this tensor of ours is the concatenation of those tensors of theirs. A rename is
the case of one part. Families list the rules of one layer, with names relative to it;
``decoder_rules`` prefixes them for every layer. ``weft.checkpoint`` follows the rules both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from weft.models.hf_layouts import Layout
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec


@dataclass(frozen=True)
class Rule:
    """Our tensor and the tensors of theirs that lie in it one after the other.

    Attributes:
        ours: Name of our tensor.
        theirs: Names of theirs.
        sizes: How much of ``axis`` each of theirs fills; none means one part fills all.
        axis: Axis of our tensor (after ``index``) along which they lie.
        index: Entry of our first axis that is meant, such as an expert; none means all.
        layout: How a part of ours is laid out in their file; none means alike.
    """

    ours: str
    theirs: tuple[str, ...]
    sizes: tuple[int, ...] | None = None
    axis: int = 0
    index: int | None = None
    layout: Layout | None = None

    def under(self, ours: str, theirs: str) -> Rule:
        """Return the rule with prefixes before all names."""
        names = tuple(theirs + name for name in self.theirs)
        return replace(self, ours=ours + self.ours, theirs=names)


@dataclass(frozen=True)
class Part:
    """One tensor of theirs and the place in ours that it fills.

    Attributes:
        ours: Name of our tensor.
        theirs: Name of theirs.
        index: Entry of our first axis; none means all.
        axis: Axis along which ``start`` and ``size`` count.
        start: Where the part begins.
        size: How long it is; none means the whole axis.
        layout: How it is laid out in their file.
    """

    ours: str
    theirs: str
    index: int | None = None
    axis: int = 0
    start: int = 0
    size: int | None = None
    layout: Layout | None = None


LayerRules = Callable[[LayerSpec], tuple[Rule, ...]]


def parts(rules: tuple[Rule, ...]) -> Iterator[Part]:
    """Yield every tensor of theirs with its place in ours."""
    for rule in rules:
        start = 0
        sizes = rule.sizes or (None,)
        for theirs, size in zip(rule.theirs, sizes, strict=True):
            yield Part(rule.ours, theirs, rule.index, rule.axis, start, size, rule.layout)
            start += size or 0


def decoder_rules(
    spec: ModelSpec,
    layer_rules: LayerRules,
    *,
    embed: str = "model.embed_tokens.weight",
    norm: str = "model.norm",
    head: str = "lm_head.weight",
    layers: str = "model.layers.",
) -> tuple[Rule, ...]:
    """Return the rules of a whole decoder from those of its layers."""
    rules = [rename("embed.weight", embed)]
    if spec.final_norm:
        rules += affine("norm", norm, bias=spec.norm.bias)
    if not spec.tie_embeddings:
        rules.append(rename("head.weight", head))
    for index, layer in enumerate(spec.layers):
        rules += (
            rule.under(f"layers.{index}.", f"{layers}{index}.") for rule in layer_rules(layer)
        )
    return tuple(rules)


def rename(ours: str, theirs: str, layout: Layout | None = None) -> Rule:
    """One tensor under two names."""
    return Rule(ours, (theirs,), layout=layout)


def affine(ours: str, theirs: str, *, bias: bool, layout: Layout | None = None) -> tuple[Rule, ...]:
    """A weight and perhaps a bias under two names; ``layout`` is the weight's."""
    weight = rename(f"{ours}.weight", f"{theirs}.weight", layout)
    return (weight, rename(f"{ours}.bias", f"{theirs}.bias")) if bias else (weight,)


def merged(
    ours: str, theirs: tuple[str, ...], sizes: tuple[int, ...], *, bias: bool
) -> tuple[Rule, ...]:
    """Several linear maps of theirs as the rows of one of ours."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return tuple(
        Rule(f"{ours}.{kind}", tuple(f"{name}.{kind}" for name in theirs), sizes) for kind in kinds
    )


def attention_rules(spec: AttentionSpec, theirs: str = "self_attn.") -> tuple[Rule, ...]:
    """Softmax attention under the names of Llama and Qwen3."""
    names = tuple(f"{theirs}{part}_proj" for part in "qkv")[: len(spec.qkv_rows)]
    rules = [
        *merged("mixer.qkv", names, spec.qkv_rows, bias=spec.qkv_bias),
        *affine("mixer.out", f"{theirs}o_proj", bias=spec.out_bias),
    ]
    if spec.qk_norm != "none":
        rules += (
            rename(f"mixer.{part}_norm.weight", f"{theirs}{part}_norm.weight") for part in "qk"
        )
    if spec.sinks:
        rules.append(rename("mixer.sinks", f"{theirs}sinks"))
    return tuple(rules)


def gated_mlp_rules(spec: MLPSpec, theirs: str = "mlp.", ours: str = "ffn.") -> tuple[Rule, ...]:
    """A gated feed-forward part under the names of Llama."""
    names = (f"{theirs}gate_proj", f"{theirs}up_proj")
    sizes = (spec.hidden_dim, spec.hidden_dim)
    return (
        *merged(f"{ours}gate_up", names, sizes, bias=spec.bias),
        *affine(f"{ours}down", f"{theirs}down_proj", bias=spec.bias),
    )


def pre_norm_rules(
    mixer: str = "input_layernorm", ffn: str = "post_attention_layernorm", *, bias: bool = False
) -> tuple[Rule, ...]:
    """The two norms of a block under the names of Llama."""
    return (*affine("mixer_norm", mixer, bias=bias), *affine("ffn_norm", ffn, bias=bias))
