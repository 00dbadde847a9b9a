"""``Adapter``: low-rank updates of named linear layers, apart from any model.

On a merged projection an adapter has one block over all rows or one block for each part of it
(queries, keys, values), with its own pair. R rank, I input width, O rows of a block, F all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from weft.core.errors import CheckpointError, did_you_mean


@dataclass(frozen=True)
class Block:
    """Adds ``scale * B A`` to rows ``start`` .. ``start + O - 1`` of a weight.

    Attributes:
        a_RI: Maps the layer's input to the rank.
        b_OR: Maps the rank to the rows.
        scale: Factor of the update.
        start: First row.
    """

    a_RI: Tensor
    b_OR: Tensor
    scale: float
    start: int = 0

    def __post_init__(self) -> None:
        assert self.a_RI.shape[0] == self.b_OR.shape[1], (self.a_RI.shape, self.b_OR.shape)

    @property
    def rank(self) -> int:
        """Inner width of the pair."""
        return self.a_RI.shape[0]

    @property
    def rows(self) -> slice:
        """The rows of the weight that change."""
        return slice(self.start, self.start + self.b_OR.shape[0])

    @property
    def size_bytes(self) -> int:
        """Bytes of the pair."""
        return sum(t.numel() * t.element_size() for t in (self.a_RI, self.b_OR))


@dataclass(frozen=True)
class Adapter:
    """Blocks by name of the linear layer, such as ``layers.0.mixer.qkv``."""

    blocks: Mapping[str, tuple[Block, ...]]

    @property
    def rank(self) -> int:
        """The largest rank of a block."""
        return max(block.rank for blocks in self.blocks.values() for block in blocks)

    @property
    def num_parameters(self) -> int:
        """Numbers in all pairs."""
        pairs = (block for blocks in self.blocks.values() for block in blocks)
        return sum(block.a_RI.numel() + block.b_OR.numel() for block in pairs)

    @property
    def size_bytes(self) -> int:
        """Bytes of all pairs."""
        return sum(block.size_bytes for blocks in self.blocks.values() for block in blocks)


def concatenated(blocks: Sequence[Block], num_rows: int) -> tuple[Tensor, Tensor, float]:
    """Return one pair for all blocks of a layer: A [R, I], B [F, R] and the scale.

    Ranks add up. B is block-diagonal where the blocks change different rows; a scale that differs
    from the first block's is multiplied into B.
    """
    scale = blocks[0].scale
    a_RI = torch.cat([block.a_RI for block in blocks])
    b_FR = blocks[0].b_OR.new_zeros(num_rows, a_RI.shape[0])
    first = 0
    for block in blocks:
        columns = slice(first, first + block.rank)
        factor = 1.0 if block.scale == scale else block.scale / scale
        b_FR[block.rows, columns] = factor * block.b_OR
        first += block.rank
    return a_RI, b_FR, scale


def linear_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (rows, input width) of every layer of a model that is one matrix, by name."""
    return {
        name: (cast(int, module.out_features), cast(int, module.in_features))
        for name, module in model.named_modules()
        if hasattr(module, "in_features") and hasattr(module, "out_features")
    }


def check_fits(adapter: Adapter, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Refuse an adapter of another model.

    Raises:
        CheckpointError: nothing to add, a layer the model lacks, or a pair of another width.
    """
    if not adapter.blocks:
        raise CheckpointError("the adapter changes no layer", fix="save it after injecting it")
    for name, blocks in adapter.blocks.items():
        if name not in shapes:
            raise CheckpointError(
                f"the model has no linear layer {name!r}", fix=did_you_mean(name, shapes)
            )
        num_rows, width = shapes[name]
        for block in blocks:
            if block.a_RI.shape[1] != width or block.rows.stop > num_rows:
                raise CheckpointError(
                    f"the adapter of {name!r} maps {block.a_RI.shape[1]} numbers to rows "
                    f"{block.start} to {block.rows.stop - 1}; the layer maps {width} to {num_rows}",
                    fix="use an adapter that was trained on this model",
                )
