"""Trained bias by bucket of distances, one table for a stack of layers (T5, arXiv:1910.10683).

N query heads, R entries by distance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from weft.spec import AttentionSpec, LayerSpec, RelativeBiasSpec


class RelativeBias(nn.Module):
    """Score bias per head that depends on how far the key is from the query."""

    def __init__(
        self,
        spec: RelativeBiasSpec,
        num_heads: int,
        *,
        causal: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.causal = causal
        self.weight = nn.Parameter(
            torch.empty(spec.num_buckets, num_heads, device=device, dtype=dtype)
        )

    def forward(self) -> Tensor:
        """Return the bias of each head and distance (``ScoreRule.bias_NR``), [N, R]."""
        reach = self.spec.max_distance
        distances_R = torch.arange(-reach, reach + 1, device=self.weight.device)
        buckets_R = distance_buckets(distances_R, self.spec, causal=self.causal)
        return nn.functional.embedding(buckets_R, self.weight).T

    def init_parameters(self, generator: torch.Generator) -> None:
        """Start without a preference for any distance."""
        self.weight.zero_()


def distance_buckets(distances: Tensor, spec: RelativeBiasSpec, *, causal: bool) -> Tensor:
    """Return the bucket of each distance (key position minus query position), int64.

    Half of the buckets hold one distance each; the others divide the logarithm of what remains up
    to ``max_distance`` evenly. Without causality half of all buckets are for later keys.

    >>> spec = RelativeBiasSpec(num_buckets=4, max_distance=4)
    >>> distance_buckets(torch.tensor([0, -1, -2, -9]), spec, causal=True).tolist()
    [0, 1, 2, 3]
    """
    num_buckets = spec.num_buckets if causal else spec.num_buckets // 2
    back = (-distances).clamp(min=0) if causal else distances.abs()
    num_exact = num_buckets // 2
    octaves = torch.log(back.clamp(min=1).float() / num_exact) / math.log(
        spec.max_distance / num_exact
    )
    far = (num_exact + (octaves * (num_buckets - num_exact)).long()).clamp(max=num_buckets - 1)
    buckets = torch.where(back < num_exact, back, far)
    return buckets if causal else buckets + num_buckets * (distances > 0)


def build_relative_bias(
    layers: Sequence[LayerSpec],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> RelativeBias | None:
    """Return the table of a stack; none where no layer uses one."""
    for layer in layers:
        mixer = layer.mixer
        if isinstance(mixer, AttentionSpec) and mixer.relative is not None:
            return RelativeBias(
                mixer.relative, mixer.num_heads, causal=mixer.causal, device=device, dtype=dtype
            )
    return None
