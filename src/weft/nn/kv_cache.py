"""The engine's store: keys and values per token in fixed blocks, states per sequence.

Slot ``block * block_size + offset`` holds what every layer keeps of one token
(Kwon et al. 2023, arXiv:2309.06180). Which block belongs to whom is decided by ``weft.sched``;
this class only holds the numbers. What a layer keeps is said by its ``LayerSpec``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from weft.core.console import format_bytes
from weft.core.errors import ResourceError
from weft.spec import ModelSpec, StateSpec


class KVCache:
    """What every layer keeps of past tokens.

    Attributes:
        tokens: Per layer, name and tensor [num_slots, *shape] of what is kept per token.
        states: Per layer, name and tensor [num_sequences, *shape] of what is kept per sequence.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        num_blocks: int,
        block_size: int,
        num_sequences: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.num_sequences = num_sequences
        num_slots = num_blocks * block_size
        try:
            self.tokens: list[dict[str, Tensor]] = [
                {
                    name: torch.zeros((num_slots, *shape), dtype=dtype, device=device)
                    for name, shape in layer.token_cache.items()
                }
                for layer in spec.layers
            ]
            self.states: list[dict[str, Tensor]] = [
                {
                    name: torch.zeros(
                        (num_sequences, *state.shape),
                        dtype=state_dtype(state, dtype),
                        device=device,
                    )
                    for name, state in layer.states.items()
                }
                for layer in spec.layers
            ]
        except RuntimeError as error:
            needed = num_blocks * bytes_per_block(spec, block_size, dtype)
            needed += num_sequences * bytes_per_sequence(spec, dtype)
            raise ResourceError(
                f"the KV cache needs {format_bytes(needed)} for {num_blocks} blocks of "
                f"{block_size} tokens and {num_sequences} states, more than is free",
                fix="lower engine.kv_memory_bytes or engine.num_blocks",
            ) from error

    def write(self, layer: int, values_T: Mapping[str, Tensor], slots_T: Tensor) -> None:
        """Store what one step's tokens leave behind, each in its slot."""
        for name, value_T in values_T.items():
            stored = self.tokens[layer][name]
            stored.index_copy_(0, slots_T, value_T.to(stored.dtype))

    @property
    def size_bytes(self) -> int:
        """Bytes held by all layers."""
        tensors = [t for layer in (*self.tokens, *self.states) for t in layer.values()]
        return sum(t.numel() * t.element_size() for t in tensors)


def state_dtype(state: StateSpec, dtype: torch.dtype) -> torch.dtype:
    """Return the element type a state is stored in."""
    return torch.float32 if state.dtype == "float32" else dtype


def bytes_per_block(spec: ModelSpec, block_size: int, dtype: torch.dtype) -> int:
    """Return the bytes one block takes over all layers."""
    return spec.cache_values_per_token * block_size * dtype.itemsize


def bytes_per_sequence(spec: ModelSpec, dtype: torch.dtype) -> int:
    """Return the bytes of the states of one sequence over all layers."""
    states = [state for layer in spec.layers for state in layer.states.values()]
    return sum(state.num_values * state_dtype(state, dtype).itemsize for state in states)
