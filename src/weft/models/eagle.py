"""EAGLE heads: one block that guesses the model's next hidden state (Li et al. 2024,
arXiv:2401.15077; Li et al. 2025, arXiv:2503.01840).

T tokens, D model width. The head joins the model's normalised hidden state at position i with the
embedding of token i + 1, both normalised as in EAGLE-3, and answers with what the model will know
at position i + 1; the model's own output projection makes it scores of token i + 2. Running ahead,
it reads its own answers in place of the model's states.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from weft.core.errors import UnsupportedError
from weft.models.decoder import Block
from weft.models.init import init_weights
from weft.models.mtp import MTPModule
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec

# The number its block has in the head's own cache.
LAYER_INDEX = 0


class EagleHead(MTPModule):
    """A head for one model.

    Args:
        spec: The model it drafts for.
        ffn_dim: Inner width of its feed-forward part.
        seed: Of its first weights.

    Attributes:
        layer: Its block.
        ffn_dim: As given.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        ffn_dim: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        layer = head_layer(spec, ffn_dim)
        block = Block(
            spec.dim, layer, layer=LAYER_INDEX, norm=spec.norm, device=device, dtype=dtype
        )
        super().__init__(spec.dim, block, spec.norm, device=device, dtype=dtype)
        self.layer = layer
        self.ffn_dim = ffn_dim
        if self.project.weight.device.type != "meta":
            init_weights(self, replace(spec, layers=(layer,), num_mtp_layers=0), seed=seed)


def head_layer(spec: ModelSpec, ffn_dim: int) -> LayerSpec:
    """Return the head's block: the model's last attention over everything, and a dense part.

    Raises:
        UnsupportedError: no layer of the model has plain attention.
    """
    mixers = [layer.mixer for layer in spec.layers if isinstance(layer.mixer, AttentionSpec)]
    if not mixers:
        raise UnsupportedError(
            "EAGLE heads are built like the model's attention, and no layer has plain attention",
            fix="draft with another kind of speculation",
        )
    return LayerSpec(replace(mixers[-1], window=None, kv_source=None), MLPSpec(ffn_dim))
