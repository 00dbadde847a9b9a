"""BERT's tensor names."""

from __future__ import annotations

from weft.models.hf_keys import Rule, affine, merged, rename
from weft.spec import AttentionSpec, EncoderSpec, LayerSpec

EMBEDDINGS = "embeddings.word_embeddings.weight"


def rules(spec: EncoderSpec, prefix: str = "") -> tuple[Rule, ...]:
    """Return the key map; names of the encoder itself begin with ``prefix``."""
    found = [rename("embed.weight", EMBEDDINGS)]
    found.append(rename("positions.weight", "embeddings.position_embeddings.weight"))
    if spec.num_token_types:
        found.append(rename("token_types.weight", "embeddings.token_type_embeddings.weight"))
    found += affine("embed_norm", "embeddings.LayerNorm", bias=True)
    for index, layer in enumerate(spec.layers):
        names = (f"layers.{index}.", f"encoder.layer.{index}.")
        found += (rule.under(*names) for rule in _layer_rules(layer))
    if spec.pooler:
        found += affine("pooler", "pooler.dense", bias=True)
    return (*(rule.under("", prefix) for rule in found), *_head_rules(spec))


def _layer_rules(layer: LayerSpec) -> tuple[Rule, ...]:
    assert isinstance(layer.mixer, AttentionSpec)
    names = tuple(f"attention.self.{part}" for part in ("query", "key", "value"))
    return (
        *merged("mixer.qkv", names, layer.mixer.qkv_rows, bias=True),
        *affine("mixer.out", "attention.output.dense", bias=True),
        *affine("mixer_norm", "attention.output.LayerNorm", bias=True),
        *affine("ffn.up", "intermediate.dense", bias=True),
        *affine("ffn.down", "output.dense", bias=True),
        *affine("ffn_norm", "output.LayerNorm", bias=True),
    )


def _head_rules(spec: EncoderSpec) -> tuple[Rule, ...]:
    if spec.masked_lm is None:
        return ()
    theirs = "cls.predictions."
    return (
        *affine("masked_lm.dense", f"{theirs}transform.dense", bias=True),
        *affine("masked_lm.norm", f"{theirs}transform.LayerNorm", bias=True),
        rename("masked_lm.bias", f"{theirs}bias"),
    )
