"""Two-way maps between our parameter names and Hugging Face's, as data.

One ``Rule`` says: this tensor of ours is the concatenation of those tensors of theirs. A rename is
the case of one part. Families list the rules of one layer, with names relative to it;
``decoder_rules`` prefixes them for every layer. ``weft.checkpoint`` follows the rules both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from weft.models.hf_layouts import Layout
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec, MoESpec


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


def moe_rules(
    spec: MoESpec,
    theirs: str = "mlp.",
    ours: str = "ffn.",
    *,
    projections: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    shared: str = "shared_experts",
    correction_bias: str = "gate.e_score_correction_bias",
) -> tuple[Rule, ...]:
    """A mixture of experts with one tensor per expert and projection.

    ``projections`` are their gate, up and down of an expert; the defaults are DeepSeek-V3's names,
    with which Qwen-MoE and GLM-4.5 share most.
    """
    rules = [rename(f"{ours}router.weight", f"{theirs}gate.weight")]
    if spec.router.correction_bias:
        rules.append(rename(f"{ours}router.correction_bias", f"{theirs}{correction_bias}"))
    if spec.router.bias:
        rules.append(rename(f"{ours}router.bias", f"{theirs}gate.bias"))
    for expert in range(spec.num_experts):
        gate, up, down = (f"{theirs}experts.{expert}.{name}.weight" for name in projections)
        sizes = (spec.expert.hidden_dim, spec.expert.hidden_dim)
        rules.append(Rule(f"{ours}experts.gate_up", (gate, up), sizes, index=expert))
        rules.append(Rule(f"{ours}experts.down", (down,), index=expert))
    if spec.shared is not None:
        rules += gated_mlp_rules(spec.shared, f"{theirs}{shared}.", f"{ours}shared.")
    if spec.shared_gate:
        rules.append(rename(f"{ours}shared_gate.weight", f"{theirs}{shared}_gate.weight"))
    return tuple(rules)


def norm_rules(names: Mapping[str, str], *, bias: bool = False) -> tuple[Rule, ...]:
    """The norms of a block: ours and theirs."""
    return tuple(rule for ours, theirs in names.items() for rule in affine(ours, theirs, bias=bias))


def pre_norm_rules(
    mixer: str = "input_layernorm", ffn: str = "post_attention_layernorm", *, bias: bool = False
) -> tuple[Rule, ...]:
    """The two norms of a block under the names of Llama."""
    return norm_rules({"mixer_norm": mixer, "ffn_norm": ffn}, bias=bias)
