"""Qwen3's tensor names: Llama's, and the two head norms."""

from __future__ import annotations

from weft.models.families import llama
from weft.models.hf_keys import Rule
from weft.spec import ModelSpec


def rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the key map."""
    norms = tuple(
        Rule(
            f"layers.{{layer}}.mixer.{part}_norm.weight",
            (f"model.layers.{{layer}}.self_attn.{part}_norm.weight",),
        )
        for part in "qk"
    )
    return llama.rules(spec) + norms
