"""How a layer's numbers per token lie in the cache: as they are, or as codes with factors.

Keys and values of every head, a latent and an index key each have one factor per token, the
largest magnitude over the largest code (``weft.ops.scaled_rows``); what the factor is taken over
is one token's own row, so nothing stored ever changes when another token comes. The rotated key
behind a latent stays in the model's type: it is a ninth of the row and decides positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from weft.ops.scaled_rows import Rows, ScaledRows, quantize
from weft.spec import LayerSpec

SCALES, EXACT = "_scales", "_exact"


@dataclass(frozen=True)
class Stored:
    """One tensor of a cache: what it holds of one token.

    Attributes:
        shape: Per token.
        dtype: As it is stored. Codes lie as int8, which every copy on every device knows.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def stored_parts(
    layer: LayerSpec, dtype: torch.dtype, codes: torch.dtype | None
) -> dict[str, Stored]:
    """Return the tensors of a layer's cache by name.

    Args:
        layer: Says what is kept per token (``token_cache``).
        dtype: Of what is not quantized.
        codes: Type of the codes, a key of ``CODE_LIMITS``; none stores numbers as they are.
    """
    if codes is None:
        return {name: Stored(shape, dtype) for name, shape in layer.token_cache.items()}
    parts = {}
    for name, (*axes, width) in layer.token_cache.items():
        exact = layer.mixer.rotated_cache.get(name, 0)
        parts[name] = Stored((*axes, width - exact), torch.int8)
        parts[name + SCALES] = Stored(tuple(axes), torch.float32)
        if exact:
            parts[name + EXACT] = Stored((*axes, exact), dtype)
    return parts


def encode(
    values_T: Mapping[str, Tensor], stored: Mapping[str, Tensor], codes: torch.dtype
) -> dict[str, Tensor]:
    """Return the parts of each value to write into the tensors of the same names."""
    parts: dict[str, Tensor] = {}
    for name, value_T in values_T.items():
        width = stored[name].shape[-1]
        codes_T, parts[name + SCALES] = quantize(value_T[..., :width], codes)
        parts[name] = codes_T.view(torch.int8)
        if name + EXACT in stored:
            parts[name + EXACT] = value_T[..., width:]
    return parts


def readable(stored: Mapping[str, Tensor], codes: torch.dtype) -> dict[str, Rows]:
    """Return the tables that attention reads, by the names of ``token_cache``."""
    names = [name for name in stored if not name.endswith((SCALES, EXACT))]
    return {
        name: ScaledRows(stored[name].view(codes), stored[name + SCALES], stored.get(name + EXACT))
        for name in names
    }
