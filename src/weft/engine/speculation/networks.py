"""Networks that draft token by token, each with keys and values of its own on the target's blocks.

T tokens of one pass, D width of the target, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from weft.core.errors import UnsupportedError
from weft.models import heads
from weft.models.decoder import Decoder
from weft.models.mtp import MTPModule
from weft.nn.context import StepContext
from weft.nn.kv_cache import KVCache
from weft.ops.scaled_rows import Rows
from weft.spec import LayerSpec, ModelSpec


class Network(Protocol):
    """What computes guesses.

    Attributes:
        lag: 0 where the input at position i is the token there; 1 where it is the target's hidden
            state there and the token behind it.
        max_context: Most tokens of one sequence.
    """

    lag: int
    max_context: int

    def cache(self, num_blocks: int, block_size: int) -> KVCache:
        """Return a new cache."""
        ...

    def __call__(self, tokens_T: Tensor, hidden_TD: Tensor | None, ctx: StepContext) -> Tensor:
        """Return the network's hidden states, [T, D]."""
        ...

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Return the scores of every next token, [T, V], float32."""
        ...


class DecoderNetwork:
    """A smaller model of the same vocabulary."""

    lag = 0

    def __init__(self, decoder: Decoder, target: ModelSpec) -> None:
        if decoder.spec.vocab_size != target.vocab_size:
            raise UnsupportedError(
                f"the drafting model has {decoder.spec.vocab_size} tokens, the target "
                f"{target.vocab_size}",
                fix="draft with a model of the same tokenizer",
            )
        if decoder.spec.has_states:
            raise UnsupportedError(
                "the drafting model has recurrent states, which cannot take back wrong guesses",
                fix="draft with a model of attention layers",
            )
        self.decoder = decoder
        self.max_context = min(decoder.spec.context_length, target.context_length)

    def cache(self, num_blocks: int, block_size: int) -> KVCache:
        """Return a new cache."""
        return KVCache(
            self.decoder.spec,
            num_blocks=num_blocks,
            block_size=block_size,
            dtype=self.decoder.dtype,
            device=self.decoder.device,
        )

    def __call__(self, tokens_T: Tensor, hidden_TD: Tensor | None, ctx: StepContext) -> Tensor:
        """Return the normalised hidden states, [T, D]."""
        return self.decoder(tokens_T, ctx)

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Return the scores of every next token, [T, V], float32."""
        return heads.logits(self.decoder, hidden_TD)


class HeadNetwork:
    """A head on the target's hidden states that reads its own instead where it runs ahead.

    An EAGLE head (Li et al. 2024, arXiv:2401.15077), or the first prediction module of a model,
    used again and again. Embedding and output projection are the target's.

    Args:
        head: The module.
        layer: What its block keeps of a token.
        index: The layer number its block has.
        model: The target.
    """

    lag = 1

    def __init__(self, head: MTPModule, layer: LayerSpec, index: int, model: Decoder) -> None:
        self.head = head
        self.model = model
        self.max_context = model.spec.context_length
        self._layer = layer
        self._index = index

    def cache(self, num_blocks: int, block_size: int) -> KVCache:
        """Return a new cache."""
        return module_cache(self.model, (self._layer,), self._index, num_blocks, block_size)

    def __call__(self, tokens_T: Tensor, hidden_TD: Tensor | None, ctx: StepContext) -> Tensor:
        """Return hidden states one token further ahead, [T, D]."""
        assert hidden_TD is not None
        ctx.tokens_T = tokens_T
        return self.head(hidden_TD, self.model.embed_tokens(tokens_T, ctx), ctx)

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Return the scores of every next token, [T, V], float32."""
        return heads.logits(self.model, hidden_TD)


class ModuleCache(KVCache):
    """The cache of layers that are not counted from zero."""

    def __init__(
        self,
        spec: ModelSpec,
        first_layer: int,
        *,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(
            spec, num_blocks=num_blocks, block_size=block_size, dtype=dtype, device=device
        )
        self._first_layer = first_layer

    def write(self, layer: int, values_T: Mapping[str, Tensor], slots_T: Tensor) -> None:
        """Store what one step's tokens leave behind, each in its slot."""
        super().write(layer - self._first_layer, values_T, slots_T)

    def read(self, layer: int) -> Mapping[str, Rows]:
        """Return what attention reads."""
        return super().read(layer - self._first_layer)


def module_cache(
    model: Decoder,
    layers: tuple[LayerSpec, ...],
    first_layer: int,
    num_blocks: int,
    block_size: int,
) -> ModuleCache:
    """Return the cache of blocks beside a model's own.

    Raises:
        UnsupportedError: one of them is recurrent, or uses the keys of another layer.
    """
    if any(layer.states or not layer.token_cache for layer in layers):
        raise UnsupportedError(
            "the drafting head has recurrent states or no keys of its own",
            fix="draft with another kind of speculation",
        )
    return ModuleCache(
        replace(model.spec, layers=layers, num_mtp_layers=0),
        first_layer,
        num_blocks=num_blocks,
        block_size=block_size,
        dtype=model.dtype,
        device=model.device,
    )
