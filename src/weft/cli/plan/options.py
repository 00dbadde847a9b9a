"""Options that several verbs share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Group, Parameter

OUTPUT = Group("Output", sort_key=3)
LAYOUT = Group("Layout", sort_key=1)
TRAFFIC = Group("Traffic", sort_key=2)


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True)
class Output:
    """How an answer is given.

    Attributes
    ----------
    json
        Print JSON for programs.
    html
        Also write one self-contained page.
    explain
        Print the formula of every figure.
    """

    json: bool = False
    html: Path | None = None
    explain: bool = False


@Parameter(name="*", group=LAYOUT)
@dataclass(frozen=True)
class LayoutOptions:
    """How a model is trained on its devices.

    Attributes
    ----------
    tp
        Devices that share each matrix.
    pp
        Devices that hold different layers.
    vp
        Stages per pipeline rank.
    cp
        Devices that share each sequence.
    ep
        Devices that share the experts.
    zero
        What data parallelism shards: 0 nothing, 1 optimizer, 2 and gradients, 3 and weights.
    mbs
        Sequences per forward pass.
    gbs
        Sequences per step; by default one per replica and stage.
    seq
        Tokens of a sequence.
    recompute
        What the backward pass computes again: none, selective, full.
    recompute_share
        In so many of the layers.
    dtype
        Element type of matrix products: bfloat16, float8, float4.
    frozen
        The weights are not trained.
    lora
        Width of trained adapters beside every matrix, the weights frozen; 0 trains the weights.
    weight_bits
        Bits per frozen weight in memory: 16, 8 or 4 (QLoRA).
    """

    tp: int = 1
    pp: int = 1
    vp: int = 1
    cp: int = 1
    ep: int = 1
    zero: int = 1
    mbs: int = 1
    gbs: int | None = None
    seq: int = 4096
    recompute: str = "none"
    recompute_share: float = 1.0
    dtype: str = "bfloat16"
    frozen: bool = False
    lora: int = 0
    weight_bits: int = 16


@Parameter(name="*", group=LAYOUT)
@dataclass(frozen=True)
class DeploymentOptions:
    """How a model is served on its devices.

    Attributes
    ----------
    tp
        Devices that share each matrix; by default those of one replica over dp and pp.
    dp
        Groups that serve different sequences (data-parallel attention).
    pp
        Stages.
    ep
        Devices the experts are spread over whole; 1 cuts every expert.
    dtype
        Weights: bfloat16, float8, int8, int4, float4.
    kv_dtype
        The cache.
    """

    tp: int | None = None
    dp: int = 1
    pp: int = 1
    ep: int = 1
    dtype: str = "bfloat16"
    kv_dtype: str = "bfloat16"


@Parameter(name="*", group=LAYOUT)
@dataclass(frozen=True)
class FleetOptions:
    """The replicas of a simulated service.

    Attributes
    ----------
    hw
        Devices of one replica.
    replicas
        Equal replicas; decode workers if there are prefill workers.
    prefill
        Workers that compute prompts only; 0 lets every replica do both.
    routing
        How requests find replicas: least, round-robin, prefix.
    """

    hw: str = "H100"
    replicas: int = 1
    prefill: int = 0
    routing: str = "least"

    @property
    def title(self) -> str:
        workers = f" + {self.prefill} prefill workers" if self.prefill else ""
        return f"{self.replicas} x {self.hw}{workers}"


@Parameter(name="*", group=TRAFFIC)
@dataclass(frozen=True)
class TrafficOptions:
    """What every request looks like.

    Attributes
    ----------
    isl
        Prompt tokens.
    osl
        Output tokens.
    cached
        Prompt tokens found in the prefix cache.
    step_tokens
        Token budget of a step; longer prompts go in chunks.
    """

    isl: int = 1024
    osl: int = 256
    cached: int = 0
    step_tokens: int = 8192
