"""Tensor names of Mamba, Mamba-2 and RWKV-4: recurrent layers only."""

from __future__ import annotations

from weft.models.hf_keys import Rule, affine, decoder_rules, rename
from weft.models.hf_layouts import Inserted
from weft.spec import LayerSpec, Mamba2Spec, MambaSpec, ModelSpec

BACKBONE = {
    "embed": "backbone.embeddings.weight",
    "norm": "backbone.norm_f",
    "layers": "backbone.layers.",
}


def mamba(spec: ModelSpec) -> tuple[Rule, ...]:
    """Mamba and Falcon-Mamba."""
    return decoder_rules(spec, _mamba_layer, **BACKBONE)


def mamba2(spec: ModelSpec) -> tuple[Rule, ...]:
    """Mamba-2."""
    return decoder_rules(spec, _mamba2_layer, **BACKBONE)


def rwkv(spec: ModelSpec) -> tuple[Rule, ...]:
    """RWKV-4; the norm behind the embedding belongs to their first block."""
    return (
        *affine("embed_norm", "rwkv.blocks.0.pre_ln", bias=True),
        *decoder_rules(
            spec,
            _rwkv_layer,
            embed="rwkv.embeddings.weight",
            norm="rwkv.ln_out",
            head="head.weight",
            layers="rwkv.blocks.",
        ),
    )


def _mamba_layer(layer: LayerSpec) -> tuple[Rule, ...]:
    mixer = layer.mixer
    assert isinstance(mixer, MambaSpec)
    rules = (
        *affine("in_proj", "in_proj", bias=mixer.bias),
        *affine("conv", "conv1d", bias=mixer.conv_bias, layout=Inserted((1,))),
        rename("x_proj.weight", "x_proj.weight"),
        rename("step.weight", "dt_proj.weight"),
        rename("dt_bias", "dt_proj.bias"),
        rename("a_log", "A_log"),
        rename("skip", "D"),
        *affine("out", "out_proj", bias=mixer.bias),
    )
    return _only_mixer(rules)


def _mamba2_layer(layer: LayerSpec) -> tuple[Rule, ...]:
    mixer = layer.mixer
    assert isinstance(mixer, Mamba2Spec)
    rules = (
        *affine("in_proj", "in_proj", bias=mixer.bias),
        *affine("conv", "conv1d", bias=mixer.conv_bias, layout=Inserted((1,))),
        rename("a_log", "A_log"),
        rename("dt_bias", "dt_bias"),
        rename("skip", "D"),
        rename("norm.weight", "norm.weight"),
        *affine("out", "out_proj", bias=mixer.bias),
    )
    return _only_mixer(rules)


def _only_mixer(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return (
        rename("mixer_norm.weight", "norm.weight"),
        *(rule.under("mixer.", "mixer.") for rule in rules),
    )


def _rwkv_layer(layer: LayerSpec) -> tuple[Rule, ...]:
    mixer_shares = ("time_mix_key", "time_mix_value", "time_mix_receptance")
    ffn_shares = ("time_mix_key", "time_mix_receptance")
    mixer = (
        Rule("mix", mixer_shares, (1, 1, 1), layout=Inserted((0,))),
        rename("decay", "time_decay"),
        rename("bonus", "time_first"),
        *(rename(f"{part}.weight", f"{part}.weight") for part in ("key", "value", "receptance")),
        rename("out.weight", "output.weight"),
    )
    ffn = (
        Rule("mix", ffn_shares, (1, 1), layout=Inserted((0,))),
        rename("up.weight", "key.weight"),
        rename("down.weight", "value.weight"),
        rename("receptance.weight", "receptance.weight"),
    )
    return (
        *affine("mixer_norm", "ln1", bias=True),
        *affine("ffn_norm", "ln2", bias=True),
        *(rule.under("mixer.", "attention.") for rule in mixer),
        *(rule.under("ffn.", "feed_forward.") for rule in ffn),
    )
