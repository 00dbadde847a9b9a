"""What families of equal layers look at when they write ``config.json``."""

from __future__ import annotations

from collections.abc import Sequence

from weft.core.errors import UnsupportedError
from weft.spec.attention import AttentionSpec
from weft.spec.ffn import MLPSpec
from weft.spec.model import LayerSpec


def first_parts(layers: Sequence[LayerSpec]) -> tuple[AttentionSpec, MLPSpec]:
    """Return the softmax attention and the dense feed-forward part of the first layer.

    Raises:
        UnsupportedError: it has others.
    """
    mixer, ffn = layers[0].mixer, layers[0].ffn
    if not isinstance(mixer, AttentionSpec) or not isinstance(ffn, MLPSpec):
        raise UnsupportedError(
            f"this family has softmax attention and a dense feed-forward part, not "
            f"{type(mixer).__name__} and {type(ffn).__name__}"
        )
    return mixer, ffn
