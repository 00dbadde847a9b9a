"""Floor 1: pure descriptions of models, requests, sampling, hardware and parallel layouts.

A ``ModelSpec`` is the one definition that is built (``weft.models``), counted (``weft.plan``),
converted (``weft.checkpoint``) and served (``weft.engine``). Nothing here imports torch.
"""

from weft.spec.hardware import HardwareSpec
from weft.spec.model import (
    AttentionSpec,
    FFNSpec,
    LayerSpec,
    MixerSpec,
    MLPSpec,
    ModelSpec,
    NormSpec,
    RotaryScaling,
    RotarySpec,
)
from weft.spec.parallel import ParallelSpec
from weft.spec.request import FinishReason, Request
from weft.spec.sampling import SamplingParams
from weft.spec.shape import ModelShape

__all__ = [
    "AttentionSpec",
    "FFNSpec",
    "FinishReason",
    "HardwareSpec",
    "LayerSpec",
    "MLPSpec",
    "MixerSpec",
    "ModelShape",
    "ModelSpec",
    "NormSpec",
    "ParallelSpec",
    "Request",
    "RotaryScaling",
    "RotarySpec",
    "SamplingParams",
]
