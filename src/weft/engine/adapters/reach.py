"""Which linear layers of a model see every token of a step as one row each.

Only there can a hook add a row's update. Latent attention multiplies by ``kv_up`` without calling
it, and experts are stacks that see the rows of a router's choice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from weft.adapt.adapter import linear_shapes
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.spec import AttentionSpec, MLASpec

# Any number that is no width of a layer would do.
_NUM_TOKENS = 3
# Merged projections of recurrent mixers.
_RECURRENT_PARTS = {"qkvz": 2, "ba": 2, "qkv": 3, "low": 3}


def reachable_shapes(model: Decoder) -> dict[str, tuple[int, int]]:
    """Return (rows, input width) of those layers by name; runs three tokens through the model."""
    shapes = linear_shapes(model)
    seen: set[str] = set()

    def watch(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            if args and args[0].dim() == 2 and args[0].shape[0] == _NUM_TOKENS:
                seen.add(name)

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(watch(name)) for name in shapes]
    try:
        with torch.inference_mode():
            tokens_T = torch.zeros(_NUM_TOKENS, dtype=torch.int64, device=model.device)
            context = StepContext.packed(
                [_NUM_TOKENS], device=model.device, keep_keys=model.spec.kv_sources
            )
            model(tokens_T, context)
    finally:
        for handle in handles:
            handle.remove()
    return {name: shapes[name] for name in shapes if name in seen}


def num_parts(model: Decoder) -> dict[str, int]:
    """Return how many pairs beside each other a layer can have, by name; others have one.

    A merged projection has one for each of its parts, which other frameworks keep apart.
    """
    parts: dict[str, int] = {}
    for index, layer in enumerate(model.spec.layers):
        prefix = f"layers.{index}"
        if isinstance(layer.mixer, AttentionSpec):
            parts[f"{prefix}.mixer.qkv"] = len(layer.mixer.qkv_rows)
        elif isinstance(layer.mixer, MLASpec):
            parts[f"{prefix}.mixer.down"] = len(layer.mixer.down_rows)
        else:
            parts |= {f"{prefix}.mixer.{name}": num for name, num in _RECURRENT_PARTS.items()}
        parts[f"{prefix}.ffn.gate_up"] = parts[f"{prefix}.ffn.shared.gate_up"] = 2
    return parts
