"""The paged key-value store: fixed blocks of token slots, shared by all sequences.

Slot ``block * block_size + offset`` holds one token's key and value of every layer
(Kwon et al. 2023, arXiv:2309.06180). Which block belongs to whom is decided by
``weft.sched``; this class only holds the numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.core.console import format_bytes
from weft.core.errors import ResourceError
from weft.spec import ModelSpec


class KVCache:
    """Keys and values of every layer, each [num_slots, K, H]."""

    def __init__(
        self,
        spec: ModelSpec,
        *,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        num_slots = num_blocks * block_size
        try:
            for layer in spec.layers:
                shape = (num_slots, layer.mixer.num_kv_heads, layer.mixer.head_dim)
                self.keys.append(torch.zeros(shape, dtype=dtype, device=device))
                self.values.append(torch.zeros(shape, dtype=dtype, device=device))
        except RuntimeError as error:
            needed = num_blocks * bytes_per_block(spec, block_size, dtype)
            raise ResourceError(
                f"the KV cache needs {format_bytes(needed)} for {num_blocks} blocks of "
                f"{block_size} tokens, more than is free",
                fix="lower engine.kv_memory_bytes or engine.num_blocks",
            ) from error

    def write(self, layer: int, k_TKH: Tensor, v_TKH: Tensor, slots_T: Tensor) -> None:
        """Store the keys and values of one step's tokens in their slots."""
        self.keys[layer].index_copy_(0, slots_T, k_TKH.to(self.keys[layer].dtype))
        self.values[layer].index_copy_(0, slots_T, v_TKH.to(self.values[layer].dtype))

    @property
    def size_bytes(self) -> int:
        """Bytes held by all layers."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))


def bytes_per_block(spec: ModelSpec, block_size: int, dtype: torch.dtype) -> int:
    """Return the bytes one block takes over all layers."""
    return spec.cache_values_per_token * block_size * dtype.itemsize
