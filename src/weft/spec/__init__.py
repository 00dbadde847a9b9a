"""Floor 1: pure descriptions of models, requests, sampling, hardware and parallel layouts.

A ``ModelSpec`` is the one definition that is built (``weft.models``), counted (``weft.plan``),
converted (``weft.checkpoint``) and served (``weft.engine``). Nothing here imports torch.

``families`` translates ``config.json``, ``zoo`` has those of published models by name, and ``lint``
remarks on sizes that hardware or experience speaks against.
"""

from weft.spec.attention import AttentionSpec
from weft.spec.cache import CacheKinds, StateSpec
from weft.spec.encoder import EncoderDecoderSpec, EncoderSpec, PoolingSpec
from weft.spec.ffn import ChannelMixSpec, MLPSpec, MoESpec, RouterSpec
from weft.spec.hardware import HardwareSpec
from weft.spec.latent import IndexerSpec, MLASpec
from weft.spec.model import FFNSpec, LayerSpec, MixerSpec, ModelSpec, NormSpec
from weft.spec.parallel import ParallelSpec
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
from weft.spec.request import FinishReason, Request
from weft.spec.rotary import (
    LearnedPositions,
    PositionSpec,
    RelativeBiasSpec,
    RotaryScaling,
    RotarySpec,
    SinusoidalPositions,
)
from weft.spec.sampling import SamplingParams
from weft.spec.shape import ExpertShape, ModelShape
from weft.spec.structured import (
    EBNF,
    AfterThoughts,
    Choice,
    JSONObject,
    JSONSchema,
    Regex,
    StructuredSpec,
    Tag,
    Tagged,
)

__all__ = [
    "EBNF",
    "AfterThoughts",
    "AttentionSpec",
    "CacheKinds",
    "ChannelMixSpec",
    "Choice",
    "EncoderDecoderSpec",
    "EncoderSpec",
    "ExpertShape",
    "FFNSpec",
    "FinishReason",
    "GatedDeltaNetSpec",
    "HardwareSpec",
    "IndexerSpec",
    "JSONObject",
    "JSONSchema",
    "KimiDeltaSpec",
    "LayerSpec",
    "LearnedPositions",
    "LinearAttentionSpec",
    "MLASpec",
    "MLPSpec",
    "Mamba2Spec",
    "MambaSpec",
    "MatrixRWKVSpec",
    "MixerSpec",
    "MoESpec",
    "ModelShape",
    "ModelSpec",
    "NormSpec",
    "ParallelSpec",
    "PoolingSpec",
    "PositionSpec",
    "RWKVSpec",
    "Regex",
    "RelativeBiasSpec",
    "Request",
    "RotaryScaling",
    "RotarySpec",
    "RouterSpec",
    "SamplingParams",
    "ShortConvSpec",
    "SinusoidalPositions",
    "StateSpec",
    "StructuredSpec",
    "Tag",
    "Tagged",
]
