"""A dense decoder becomes one with experts that computes the same. E experts, F inner width.

Two ways. ``upcycle`` copies each feed-forward part into every expert: weights that sum to one make
the mixture equal to the part for any router (Komatsuzaki et al. 2022, arXiv:2212.05055).
``split`` deals the part's inner columns out to experts: together they are the part, so the model
is the same while all are used, and an approximation that training mends when fewer are
(LLaMA-MoE, Zhu et al. 2024, arXiv:2406.16554).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from weft.core.errors import ConfigError
from weft.models.decoder import Decoder
from weft.spec import MLPSpec, ModelSpec, MoESpec, RouterSpec

# Whose files can hold the result; other families keep their name and live in memory only.
FAMILIES = {"llama": "mixtral", "mistral": "mixtral", "qwen2": "qwen2_moe", "qwen3": "qwen3_moe"}

SOFTMAX = RouterSpec()
"""The router of Mixtral: weights are a softmax over the chosen experts."""

Parts = dict[str, Tensor]
"""Tensors of a feed-forward part by name, such as "down.weight"."""


def upcycle(
    model: Decoder,
    *,
    num_experts: int,
    top_k: int,
    router: RouterSpec = SOFTMAX,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> Decoder:
    """Return a model whose experts are copies of the dense parts; ``layers`` none means all.

    Raises:
        ConfigError: the router's weights do not sum to one, or a layer is not dense.
    """
    sums_to_one = router.kind in ("top_k", "gshard") and router.weight_scale == 1.0
    if not sums_to_one or not (router.normalise or router.chosen_only):
        raise ConfigError(
            "copies of one part equal it only under weights that sum to one",
            fix="use a top_k router with normalise=True and weight_scale=1",
        )

    def mixture(dense: MLPSpec) -> MoESpec:
        return MoESpec(num_experts, top_k, dense, router)

    def copies(parts: Parts) -> Parts:
        return {name: tensor.expand(num_experts, *tensor.shape) for name, tensor in parts.items()}

    return _rebuilt(model, mixture, copies, layers, seed)


def split(
    model: Decoder,
    *,
    num_experts: int,
    top_k: int | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> Decoder:
    """Return a model whose experts are slices of the dense parts; ``top_k`` none uses all.

    The output projection of a slice is multiplied by E and the router starts at zero, so that
    weights 1 / E give back the sum; with K of E experts a token gets E / K times their sum, as
    LLaMA-MoE scales it.

    Raises:
        ConfigError: a part's width does not divide by ``num_experts``, or a layer is not dense.
    """

    def mixture(dense: MLPSpec) -> MoESpec:
        if dense.hidden_dim % num_experts:
            raise ConfigError(
                f"a feed-forward width of {dense.hidden_dim} does not split into {num_experts}",
                fix="choose a divisor of the width",
            )
        slice_ = replace(dense, hidden_dim=dense.hidden_dim // num_experts)
        return MoESpec(num_experts, top_k or num_experts, slice_)

    def slices(parts: Parts) -> Parts:
        return {name: _slices(name, tensor, num_experts) for name, tensor in parts.items()}

    result = _rebuilt(model, mixture, slices, layers, seed)
    weights = dict(result.named_parameters())
    with torch.no_grad():
        for index in _chosen(model.spec, layers):
            weights[f"layers.{index}.ffn.router.weight"].zero_()
    return result


def _slices(name: str, tensor: Tensor, num_experts: int) -> Tensor:
    """Deal the inner axis out to experts, [E, ...]."""
    if name == "down.weight":
        return tensor.unflatten(1, (num_experts, -1)).movedim(1, 0) * num_experts
    if name == "down.bias":
        return tensor.expand(num_experts, *tensor.shape)
    num_parts = 2 if name.startswith("gate_up") else 1
    parts = tensor.unflatten(0, (num_parts, num_experts, -1))
    return parts.transpose(0, 1).flatten(1, 2)


def _rebuilt(
    model: Decoder,
    mixture: Callable[[MLPSpec], MoESpec],
    experts: Callable[[Parts], Parts],
    layers: Sequence[int] | None,
    seed: int,
) -> Decoder:
    spec, chosen = model.spec, _chosen(model.spec, layers)
    new_layers = tuple(
        replace(layer, ffn=mixture(dense)) if (dense := chosen.get(index)) else layer
        for index, layer in enumerate(spec.layers)
    )
    new_spec = replace(spec, layers=new_layers, family=FAMILIES.get(spec.family, spec.family))
    result = Decoder(new_spec, device=model.device, dtype=model.dtype, seed=seed)
    ours, theirs = result.state_dict(), model.state_dict()
    with torch.no_grad():
        for name in ours.keys() & theirs.keys():
            ours[name].copy_(theirs[name])
        for index in chosen:
            prefix = f"layers.{index}.ffn."
            parts = {n.removeprefix(prefix): t for n, t in theirs.items() if n.startswith(prefix)}
            for name, tensor in experts(parts).items():
                ours[f"{prefix}experts.{_stacked(name)}"].copy_(tensor)
    return result


def _stacked(name: str) -> str:
    """Return the name of a part's tensor in the stack of experts.

    >>> _stacked("gate_up.weight"), _stacked("down.bias")
    ('gate_up', 'down_bias')
    """
    part, _, kind = name.partition(".")
    return part if kind == "weight" else f"{part}_{kind}"


def _chosen(spec: ModelSpec, layers: Sequence[int] | None) -> dict[int, MLPSpec]:
    """Return the layers that change, with their dense parts.

    Raises:
        ConfigError: one of them has no dense feed-forward part.
    """
    chosen = {}
    for index in range(spec.num_layers) if layers is None else layers:
        ffn = spec.layers[index].ffn if 0 <= index < spec.num_layers else None
        if not isinstance(ffn, MLPSpec):
            raise ConfigError(
                f"layer {index} has no dense feed-forward part to make experts of",
                fix="name layers that are dense",
            )
        chosen[index] = ffn
    return chosen
