"""T5's tensor names."""

from __future__ import annotations

from weft.models.hf_keys import Rule, affine, merged, rename
from weft.spec import AttentionSpec, EncoderDecoderSpec, LayerSpec, MLPSpec


def rules(spec: EncoderDecoderSpec) -> tuple[Rule, ...]:
    """Return the key map."""
    found = [rename("decoder.embed.weight", "shared.weight")]
    if not spec.decoder.tie_embeddings:
        found.append(rename("decoder.head.weight", "lm_head.weight"))
    for stack, layers in (("encoder", spec.encoder.layers), ("decoder", spec.decoder.layers)):
        table = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        found.append(rename(f"{stack}.relative_bias.weight", f"{stack}.{table}"))
        found += affine(f"{stack}.norm", f"{stack}.final_layer_norm", bias=False)
        for index, layer in enumerate(layers):
            names = (f"{stack}.layers.{index}.", f"{stack}.block.{index}.layer.")
            found += (rule.under(*names) for rule in _layer_rules(layer))
    return tuple(found)


def _layer_rules(layer: LayerSpec) -> tuple[Rule, ...]:
    assert isinstance(layer.mixer, AttentionSpec)
    assert isinstance(layer.ffn, MLPSpec)
    cross = () if layer.cross is None else _cross_rules(layer.cross)
    last = 1 if layer.cross is None else 2
    ffn = f"{last}.DenseReluDense."
    return (
        *_attention_rules(layer.mixer),
        *affine("mixer_norm", "0.layer_norm", bias=False),
        *cross,
        *_mlp_rules(layer.ffn, ffn),
        *affine("ffn_norm", f"{last}.layer_norm", bias=False),
    )


def _attention_rules(spec: AttentionSpec) -> tuple[Rule, ...]:
    names = tuple(f"0.SelfAttention.{part}" for part in "qkv")
    return (
        *merged("mixer.qkv", names, spec.qkv_rows, bias=False),
        rename("mixer.out.weight", "0.SelfAttention.o.weight"),
    )


def _cross_rules(spec: AttentionSpec) -> tuple[Rule, ...]:
    theirs = "1.EncDecAttention."
    return (
        rename("cross.q.weight", f"{theirs}q.weight"),
        *merged("cross.kv", (f"{theirs}k", f"{theirs}v"), (spec.kv_dim,) * 2, bias=False),
        rename("cross.out.weight", f"{theirs}o.weight"),
        *affine("cross_norm", "1.layer_norm", bias=False),
    )


def _mlp_rules(spec: MLPSpec, theirs: str) -> tuple[Rule, ...]:
    down = rename("ffn.down.weight", f"{theirs}wo.weight")
    if not spec.gated:
        return (rename("ffn.up.weight", f"{theirs}wi.weight"), down)
    names = (f"{theirs}wi_0", f"{theirs}wi_1")
    return (*merged("ffn.gate_up", names, (spec.hidden_dim,) * 2, bias=False), down)
