"""GPT-2's tensor names; its projections are stored transposed."""

from __future__ import annotations

from weft.models.hf_keys import Rule, affine, decoder_rules, pre_norm_rules, rename
from weft.models.hf_layouts import Transposed
from weft.spec import LayerSpec, ModelSpec

PROJECTIONS = {
    "mixer.qkv": "attn.c_attn",
    "mixer.out": "attn.c_proj",
    "ffn.up": "mlp.c_fc",
    "ffn.down": "mlp.c_proj",
}


def rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the key map."""
    names = {"embed": "transformer.wte.weight", "norm": "transformer.ln_f"}
    decoder = decoder_rules(spec, layer_rules, **names, layers="transformer.h.")
    return (rename("positions.weight", "transformer.wpe.weight"), *decoder)


def layer_rules(layer: LayerSpec) -> tuple[Rule, ...]:
    """Return the key map of one layer."""
    projections = (
        rule
        for ours, theirs in PROJECTIONS.items()
        for rule in affine(ours, theirs, bias=True, layout=Transposed())
    )
    return (*pre_norm_rules("ln_1", "ln_2", bias=True), *projections)
