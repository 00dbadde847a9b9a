"""``ModelSpec``: what a decoder is, layer by layer, without a tensor in sight.

A layer is a mixer (moves information between positions) and a feed-forward part (works on
each position alone). New architectures add a spec class to the ``MixerSpec`` or ``FFNSpec``
union; nothing else in this file changes. Rotary parameters belong to the attention, not to
the model, because several families (Gemma 3, SmolLM3) change them from layer to layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from weft.core.errors import ConfigError
from weft.spec.attention import AttentionSpec
from weft.spec.cache import StateSpec
from weft.spec.ffn import ChannelMixSpec, MLPSpec, MoESpec
from weft.spec.latent import MLASpec
from weft.spec.recurrent import (
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    LinearAttentionSpec,
    Mamba2Spec,
    MambaSpec,
    MatrixRWKVSpec,
    RWKVSpec,
    ShortConvSpec,
)
from weft.spec.rotary import PositionSpec

MixerSpec = (
    AttentionSpec
    | MLASpec
    | LinearAttentionSpec
    | GatedDeltaNetSpec
    | KimiDeltaSpec
    | MambaSpec
    | Mamba2Spec
    | RWKVSpec
    | MatrixRWKVSpec
    | ShortConvSpec
)
FFNSpec = MLPSpec | MoESpec | ChannelMixSpec

NormPlacement = Literal["pre", "post", "output", "sandwich"]


@dataclass(frozen=True)
class NormSpec:
    """The normalisation of every block and of the output.

    Attributes:
        eps: Added to the mean square or variance.
        kind: "rms" (Zhang and Sennrich 2019, arXiv:1910.07467) or "layer" (Ba et al. 2016,
            arXiv:1607.06450).
        bias: Whether a LayerNorm has a bias.
        zero_centred: The weight is stored as its distance from one (Gemma, Qwen3-Next).
        float32_weight: Multiply by the weight before rounding back to the model's type (Gemma,
            OLMo-2, gpt-oss); false rounds first (Llama). Differs in bf16 only.
    """

    eps: float = 1e-6
    kind: Literal["rms", "layer"] = "rms"
    bias: bool = False
    zero_centred: bool = False
    float32_weight: bool = False


@dataclass(frozen=True)
class LayerSpec:
    """One block: a mixer and a feed-forward part, each in its own residual branch.

    Attributes:
        mixer: Moves information between positions.
        ffn: Works on each position alone; none leaves the mixer only (Mamba-2).
        norms: Where norms sit. "pre": x + f(norm(x)). "output": x + norm(f(x)) (OLMo-2).
            "sandwich": x + norm(f(norm(x))) (Gemma 2). "post": norm(x + f(x)) (BERT).
        cross: Attention to an encoder's output, between mixer and feed-forward part.
    """

    mixer: MixerSpec
    ffn: FFNSpec | None
    norms: NormPlacement = "pre"
    cross: AttentionSpec | None = None

    @property
    def token_cache(self) -> Mapping[str, tuple[int, ...]]:
        """Name and shape per token of what the layer's attention reads again."""
        return self.mixer.token_cache

    @property
    def states(self) -> Mapping[str, StateSpec]:
        """What the layer carries per sequence, the feed-forward part's under "ffn_..."."""
        ffn = {} if self.ffn is None else self.ffn.states
        return {**self.mixer.states, **{f"ffn_{name}": state for name, state in ffn.items()}}


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only language model.

    Attributes:
        family: Name of the family whose Hugging Face layout it has, such as "llama".
        vocab_size: Rows of the embedding (V).
        dim: Width of the residual stream (D).
        layers: One entry per block.
        norm: The normalisation of every block and of the output.
        tie_embeddings: The output projection is the embedding.
        context_length: The longest sequence the model is meant for.
        bos_id: Begin-of-text token.
        eos_ids: Tokens that end a generation.
        pad_id: Padding token; never computed here, only written to config.json.
        positions: Position vectors added to the embedding; none where the mixers know positions.
        embedding_scale: Factor on embeddings (Gemma: sqrt(D)).
        embedding_norm: Normalise embeddings before the first block (RWKV).
        logit_softcap: Scores become softcap * tanh(score / softcap) (Gemma 2).
        final_norm: Whether a norm follows the last block.
        num_mtp_layers: Multi-token prediction modules behind the last block (arXiv:2412.19437).
    """

    family: str
    vocab_size: int
    dim: int
    layers: tuple[LayerSpec, ...]
    norm: NormSpec = field(default_factory=NormSpec)
    tie_embeddings: bool = False
    context_length: int = 2048
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    positions: PositionSpec | None = None
    embedding_scale: float | None = None
    embedding_norm: bool = False
    logit_softcap: float | None = None
    final_norm: bool = True
    num_mtp_layers: int = 0

    def __post_init__(self) -> None:
        if min(self.vocab_size, self.dim, self.context_length) < 1 or not self.layers:
            raise ConfigError(
                f"a model needs a vocabulary, a width, a context and layers; got "
                f"vocab_size={self.vocab_size}, dim={self.dim}, "
                f"context_length={self.context_length}, {len(self.layers)} layers"
            )
        for index, layer in enumerate(self.layers):
            self._check_kv_source(index, layer)

    def _check_kv_source(self, index: int, layer: LayerSpec) -> None:
        mixer = layer.mixer
        source = mixer.kv_source if isinstance(mixer, AttentionSpec) else None
        if source is None:
            return
        giver = self.layers[source].mixer if 0 <= source < index else None
        if not isinstance(giver, AttentionSpec) or giver.kv_source is not None:
            raise ConfigError(
                f"layer {index} shares the keys of layer {source}, which has none of its own",
                fix="kv_source must name an earlier attention layer that does not share itself",
            )

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def cache_values_per_token(self) -> int:
        """How many numbers the engine keeps per token over all layers."""
        return sum(layer.mixer.cache_values_per_token for layer in self.layers)

    @property
    def has_states(self) -> bool:
        """Whether any layer carries a state of constant size from token to token."""
        return any(layer.states for layer in self.layers)

    @property
    def window(self) -> int | None:
        """The widest window, where every layer that keeps keys has one; else none."""
        mixers = [layer.mixer for layer in self.layers if layer.token_cache]
        windows = [mixer.window if isinstance(mixer, AttentionSpec) else None for mixer in mixers]
        known = [window for window in windows if window is not None]
        return max(known) if known and len(known) == len(windows) else None

    @property
    def kv_sources(self) -> frozenset[int]:
        """Layers whose keys and values later layers use too."""
        mixers = [layer.mixer for layer in self.layers]
        return frozenset(
            mixer.kv_source
            for mixer in mixers
            if isinstance(mixer, AttentionSpec) and mixer.kv_source is not None
        )
