"""A tiny specification of every kind of mixer, feed-forward part and frame."""

from __future__ import annotations

from typing import Any

from weft.spec import (
    AttentionSpec,
    ChannelMixSpec,
    FFNSpec,
    GatedDeltaNetSpec,
    IndexerSpec,
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
    RelativeBiasSpec,
    RouterSpec,
    RWKVSpec,
    ShortConvSpec,
    SinusoidalPositions,
)

DIM = 64
PLAIN = AttentionSpec(4, 2, 16)
MLP = MLPSpec(96)
EXPERT = MLPSpec(32)
LAYER_NORM = NormSpec(kind="layer", bias=True)


def model(
    mixer: MixerSpec, ffn: FFNSpec | None = MLP, *, norms: Any = "pre", **fields: Any
) -> ModelSpec:
    """Return two equal layers between an embedding and a head."""
    return ModelSpec("llama", 50, DIM, (LayerSpec(mixer, ffn, norms=norms),) * 2, **fields)


def mixture(
    *args: Any, router: RouterSpec | None = None, num_mtp_layers: int = 0, **fields: Any
) -> ModelSpec:
    ffn = MoESpec(*args, router=router or RouterSpec(), **fields)
    return model(PLAIN, ffn, num_mtp_layers=num_mtp_layers)


MIXERS: dict[str, MixerSpec] = {
    "grouped-query": PLAIN,
    "biases and sinks": AttentionSpec(4, 1, 12, qkv_bias=True, out_bias=True, sinks=True),
    "window": AttentionSpec(4, 2, 16, window=3),
    "head norms": AttentionSpec(4, 2, 16, qk_norm="head"),
    "norms of all heads": AttentionSpec(4, 2, 16, qk_norm="all_heads"),
    "output gate": AttentionSpec(4, 2, 16, output_gate=True, qkv_bias=True),
    "alibi": AttentionSpec(4, 4, 16, rotary=None, alibi=True),
    "relative bias": AttentionSpec(4, 4, 16, rotary=None, relative=RelativeBiasSpec(8, 16)),
    "latent": MLASpec(4, 24, 16, 8, 12),
    "latent queries": MLASpec(4, 24, 16, 8, 12, query_latent_dim=20, bias=True, output_gate=True),
    "sparse latent": MLASpec(4, 24, 16, 8, 12, query_latent_dim=20, indexer=IndexerSpec(2, 16, 4)),
    "linear": LinearAttentionSpec(4, 16, 16),
    "gated linear": LinearAttentionSpec(
        4, 16, 8, feature_map="identity", normalise=False, gate_rank=6, output_gate=True
    ),
    "gated delta net": GatedDeltaNetSpec(2, 4, 16, 12),
    "kimi delta": KimiDeltaSpec(4, 16, gate_rank=6),
    "mamba-2": Mamba2Spec(4, 32, 16),
    "mamba-2 biases": Mamba2Spec(4, 32, 16, num_groups=2, bias=True, conv_bias=False),
    "mamba": MambaSpec(96, 4, 8),
    "mamba biases": MambaSpec(96, 4, 8, bias=True, conv_bias=False, inner_norm_eps=1e-6),
    "rwkv": RWKVSpec(DIM, 48),
    "rwkv-5": MatrixRWKVSpec(DIM, 4, 12),
    "rwkv-6": MatrixRWKVSpec(DIM, 4, 16, shift_rank=4, decay_rank=6),
    "short convolution": ShortConvSpec(DIM, bias=True),
}
SPECS: dict[str, ModelSpec] = {name: model(mixer) for name, mixer in MIXERS.items()} | {
    "no feed-forward part": model(Mamba2Spec(4, 32, 16), None),
    "channel mixing": model(RWKVSpec(DIM, DIM), ChannelMixSpec(DIM, 128), norm=LAYER_NORM),
    "ungated with biases": model(PLAIN, MLPSpec(80, "gelu", gated=False, bias=True)),
    "tied": model(PLAIN, tie_embeddings=True),
    "sandwich": model(
        PLAIN, norms="sandwich", norm=LAYER_NORM, positions=LearnedPositions(32),
        embedding_norm=True,
    ),
    "post norms": model(PLAIN, norms="post", final_norm=False, positions=SinusoidalPositions()),
    "output norms": model(PLAIN, norms="output", norm=NormSpec(kind="layer")),
    "experts": mixture(8, 2, EXPERT),
    "shared expert": mixture(8, 2, EXPERT, shared=MLPSpec(48), shared_gate=True),
    "expert biases": mixture(
        8, 2, MLPSpec(32, bias=True), shared=MLPSpec(48, bias=True),
        router=RouterSpec(bias=True, score="softmax_chosen"),
    ),
    "ungated experts": mixture(8, 2, MLPSpec(32, "gelu", gated=False)),
    "correction bias": mixture(
        8, 2, EXPERT,
        router=RouterSpec(score="sigmoid", correction_bias=True, num_groups=4, num_kept_groups=2),
    ),
    "latent experts": mixture(8, 2, EXPERT, latent_dim=24),
    "learnt noise": mixture(8, 2, EXPERT, router=RouterSpec(noise=1.0, noise_kind="learnt")),
    "hash": mixture(8, 2, EXPERT, router=RouterSpec("hash")),
    "soft": mixture(8, 2, EXPERT, router=RouterSpec("soft", num_slots=3)),
    "expert choice": mixture(8, 2, EXPERT, router=RouterSpec("expert_choice")),
    "switch": mixture(8, 1, EXPERT, router=RouterSpec("switch"), capacity_factor=1.25),
    "multi-token": mixture(
        8, 2, EXPERT, router=RouterSpec(score="sigmoid", correction_bias=True), num_mtp_layers=2
    ),
    "gshard": mixture(8, 2, EXPERT, router=RouterSpec("gshard"), capacity_factor=2.0),
}  # fmt: skip
