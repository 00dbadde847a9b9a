"""Tiny models with every kind of recurrent layer."""

from __future__ import annotations

from weft.models.decoder import Decoder
from weft.spec import (
    AttentionSpec,
    ChannelMixSpec,
    FFNSpec,
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    LayerSpec,
    LinearAttentionSpec,
    Mamba2Spec,
    MambaSpec,
    MatrixRWKVSpec,
    MixerSpec,
    MLPSpec,
    ModelSpec,
    NormSpec,
    RWKVSpec,
    ShortConvSpec,
)

DIM, VOCAB_SIZE = 32, 61
MLP = MLPSpec(48)
ATTENTION = AttentionSpec(4, 2, 8)
MIXERS: dict[str, MixerSpec] = {
    "linear": LinearAttentionSpec(4, 8, 12),
    "linear-relu": LinearAttentionSpec(2, 8, 8, "relu", normalise=False, output_gate=True),
    "linear-softmax": LinearAttentionSpec(2, 8, 8, "softmax"),
    "gated-linear": LinearAttentionSpec(
        2, 8, 16, "identity", normalise=False, gate_rank=4, output_gate=True
    ),
    "gated-normalised": LinearAttentionSpec(2, 8, 8, "elu", gate_rank=4),
    "retention": LinearAttentionSpec(
        2, 8, 16, "identity", normalise=False, retention=True, output_gate=True
    ),
    "lightning": LinearAttentionSpec(4, 8, 8, "relu", normalise=False, lightning=0.5),
    "gated-delta": GatedDeltaNetSpec(2, 4, 8, 12),
    "kimi-delta": KimiDeltaSpec(2, 16),
    "kimi-delta-rank": KimiDeltaSpec(4, 8, conv_kernel=3, gate_rank=4),
    "mamba2": Mamba2Spec(4, 16, 8, num_groups=2),
    "mamba2-bias": Mamba2Spec(8, 8, 16, bias=True, conv_bias=False, time_step_limit=(0.01, 0.5)),
    "mamba": MambaSpec(48, 3, 8),
    "mamba-norms": MambaSpec(40, 2, 5, conv_bias=False, bias=True, inner_norm_eps=1e-6),
    "rwkv": RWKVSpec(DIM, 40),
    "rwkv-5": MatrixRWKVSpec(DIM, 4, 8),
    "rwkv-6": MatrixRWKVSpec(DIM, 3, 16, shift_rank=4, decay_rank=5),
    "short-conv": ShortConvSpec(DIM, bias=True),
}
FFNS: dict[str, FFNSpec | None] = {
    "rwkv": ChannelMixSpec(DIM, 64),
    "rwkv-5": ChannelMixSpec(DIM, 64),
    "rwkv-6": ChannelMixSpec(DIM, 64),
    "mamba": None,
    "mamba2": None,
    "mamba2-bias": None,
}


def model_spec(name: str, *, hybrid: bool = False) -> ModelSpec:
    """Return two layers of a mixer, or three with softmax attention in the middle."""
    layer = LayerSpec(MIXERS[name], FFNS.get(name, MLP))
    layers = (layer, LayerSpec(ATTENTION, MLP), layer) if hybrid else (layer, layer)
    return ModelSpec(
        family="llama",
        vocab_size=VOCAB_SIZE,
        dim=DIM,
        layers=layers,
        norm=NormSpec(kind="layer", bias=True) if name.startswith("rwkv") else NormSpec(),
        embedding_norm=name.startswith("rwkv"),
        context_length=256,
    )


def build(name: str, *, hybrid: bool = False, seed: int = 0) -> Decoder:
    """Return a random model whose parts all matter to its outputs."""
    model = Decoder(model_spec(name, hybrid=hybrid), seed=seed).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(2.0)
    return model
