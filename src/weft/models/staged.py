"""``StagedDecoder``: some consecutive layers of a model, the others on other ranks.

T tokens, D model width.

A pass goes through the stages one after the other and back to all: every rank ends with the hidden
states of the last one, so every rank can draw the same tokens. One pass is under way at a time, so
a stage rests while the others compute: this is for models that do not fit, not for speed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from weft.core.errors import ConfigError, UnsupportedError
from weft.dist.collectives import Collectives
from weft.models.cuts import WHOLE, Sharding
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.spec import AttentionSpec, LayerSpec, ModelSpec, MoESpec


class Stages(Collectives, Protocol):
    """Ranks that can also talk in pairs."""

    def send(self, tensor: Tensor, target: int) -> None:
        """Send a contiguous tensor to one rank, which must ``receive`` it."""
        ...

    def receive(self, tensor: Tensor, source: int) -> Tensor:
        """Fill ``tensor`` with what rank ``source`` sends; returns it."""
        ...


@dataclass(frozen=True)
class StagePlan:
    """Which layers of a model a rank has; embedding, last norm and head are on every rank.

    Attributes:
        whole: The model.
        start: Its first layer that is here.
        stop: The layer behind the last one that is here.
    """

    whole: ModelSpec
    start: int
    stop: int

    @property
    def local(self) -> ModelSpec:
        """What this rank computes: a model of its layers."""
        layers = self.whole.layers[self.start : self.stop]
        return replace(self.whole, layers=tuple(map(self._renumbered, layers)), num_mtp_layers=0)

    def sharding(self, name: str) -> Sharding:
        """Return how a tensor is cut: not at all."""
        return WHOLE

    def local_name(self, name: str) -> str | None:
        """Return the name that a tensor of the model has here; none if it is elsewhere."""
        kind, _, rest = name.partition(".")
        if kind == "mtp":
            return None
        if kind != "layers":
            return name
        number, _, rest = rest.partition(".")
        index = int(number) - self.start
        return f"layers.{index}.{rest}" if 0 <= index < self.stop - self.start else None

    def _renumbered(self, layer: LayerSpec) -> LayerSpec:
        mixer = layer.mixer
        if not isinstance(mixer, AttentionSpec) or mixer.kv_source is None:
            return layer
        return replace(layer, mixer=replace(mixer, kv_source=mixer.kv_source - self.start))


def plan_stages(spec: ModelSpec, num_stages: int) -> list[StagePlan]:
    """Return which layers each of ``num_stages`` ranks has, as evenly as they divide.

    Raises:
        ConfigError: there are fewer layers than stages.
        UnsupportedError: layers that have to be on one rank, or stages that keep tokens by
            different rules.
    """
    if not 1 <= num_stages <= spec.num_layers:
        raise ConfigError(
            f"{spec.num_layers} layers cannot be dealt out to {num_stages} stages",
            fix=f"use 1 to {spec.num_layers} stages",
        )
    edges = [spec.num_layers * stage // num_stages for stage in range(num_stages + 1)]
    for index, layer in enumerate(spec.layers):
        _check(layer, index, max(edge for edge in edges if edge <= index))
    plans = [StagePlan(spec, *pair) for pair in pairwise(edges)]
    rules = {(plan.local.window, plan.local.has_states) for plan in plans}
    if len(rules) > 1:
        raise UnsupportedError(
            f"{num_stages} stages of this model would keep past tokens by different rules",
            fix="choose a number of stages that gives each all kinds of layers",
        )
    return plans


class StagedDecoder(Decoder):
    """One stage of a decoder; all ranks call it together, on the same tokens.

    Args:
        plan: Which layers are here.
        group: The stages, in order.
        dtype: Element type of the parameters, which are on the meta device until they are loaded.
    """

    def __init__(self, plan: StagePlan, group: Stages, *, dtype: torch.dtype | None = None) -> None:
        super().__init__(plan.local, device="meta", dtype=dtype)
        self.plan = plan
        self.group = group

    def forward(self, tokens_T: Tensor, ctx: StepContext) -> Tensor:
        """Return the normalised hidden state of every token, [T, D], on every rank."""
        ctx.tokens_T = tokens_T
        rank, last = self.group.rank, self.group.size - 1
        if rank == 0:
            x_TD = self.embed_tokens(tokens_T, ctx)
        else:
            shape = (len(tokens_T), self.spec.dim)
            x_TD = torch.empty(shape, dtype=self.dtype, device=self.device)
            x_TD = self.group.receive(x_TD, rank - 1)
        if self.relative_bias is not None:
            ctx.relative_bias_NR = self.relative_bias()
        for layer in self.layers:
            x_TD = layer(x_TD, ctx)
        if rank < last:
            self.group.send(x_TD, rank + 1)
        elif self.norm is not None:
            x_TD = self.norm(x_TD)
        return self.group.broadcast(x_TD.contiguous(), last)


def _check(layer: LayerSpec, index: int, first: int) -> None:
    """Refuse a layer that depends on one of another stage, or on its own number."""
    mixer, ffn = layer.mixer, layer.ffn
    source = mixer.kv_source if isinstance(mixer, AttentionSpec) else None
    if source is not None and source < first:
        raise UnsupportedError(
            f"layer {index} uses the keys of layer {source}, which is in another stage",
            fix="use fewer stages",
        )
    if isinstance(ffn, MoESpec) and ffn.router.kind == "hash":
        raise UnsupportedError(
            f"layer {index} chooses experts by its number, which differs in a stage",
            fix="use one stage",
        )
    if layer.cross is not None:
        raise UnsupportedError(
            f"layer {index} attends to an encoder, which is not shared", fix="use one stage"
        )
