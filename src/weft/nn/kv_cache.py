"""The engine's store: keys and values per token in fixed blocks, states per sequence.

Slot ``block * block_size + offset`` holds what every layer keeps of one token
(Kwon et al. 2023, arXiv:2309.06180). Which block belongs to whom is decided by ``weft.sched``;
this class only holds the numbers. What a layer keeps is said by its ``LayerSpec``, how it lies
there by ``stored_rows.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from weft.core.console import format_bytes
from weft.core.errors import ResourceError
from weft.nn.long_context.policy import LongContext, cache_spec
from weft.nn.stored_rows import encode, readable, stored_parts
from weft.ops.scaled_rows import Rows
from weft.spec import ModelSpec, StateSpec


class KVCache:
    """What every layer keeps of past tokens.

    Args:
        dtype: Element type of what is not quantized.
        codes: Quantize what is kept per token to this type, a key of
            ``weft.ops.scaled_rows.CODE_LIMITS``; none keeps ``dtype``.
        policy: What is kept of sequences too long to be kept whole; none keeps everything.

    Attributes:
        tokens: Per layer, name and tensor [num_slots, *shape] of what is kept per token. Who moves
            slots moves all of them, whatever they mean.
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
        codes: torch.dtype | None = None,
        policy: LongContext | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.num_sequences = num_sequences
        self.codes = codes
        self.policy = policy
        self.spec = spec = cache_spec(policy, spec)
        num_slots = num_blocks * block_size
        try:
            self.tokens: list[dict[str, Tensor]] = [
                {
                    name: torch.zeros((num_slots, *part.shape), dtype=part.dtype, device=device)
                    for name, part in stored_parts(layer, dtype, codes).items()
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
            needed = num_blocks * bytes_per_block(spec, block_size, dtype, codes)
            needed += num_sequences * bytes_per_sequence(spec, dtype)
            raise ResourceError(
                f"the KV cache needs {format_bytes(needed)} for {num_blocks} blocks of "
                f"{block_size} tokens and {num_sequences} states, more than is free",
                fix="lower engine.kv_memory_bytes or engine.num_blocks",
            ) from error

    def write(self, layer: int, values_T: Mapping[str, Tensor], slots_T: Tensor) -> None:
        """Store what one step's tokens leave behind, each in its slot."""
        parts = values_T
        if self.codes is not None:
            parts = encode(values_T, self.tokens[layer], self.codes)
        for name, part_T in parts.items():
            stored = self.tokens[layer][name]
            stored.index_copy_(0, slots_T, part_T.to(stored.dtype))

    def read(self, layer: int) -> Mapping[str, Rows]:
        """Return what attention reads: tables whose rows are slots, by ``token_cache``'s names."""
        stored = self.tokens[layer]
        return stored if self.codes is None else readable(stored, self.codes)

    @property
    def size_bytes(self) -> int:
        """Bytes held by all layers."""
        tensors = [t for layer in (*self.tokens, *self.states) for t in layer.values()]
        return sum(t.numel() * t.element_size() for t in tensors)


def state_dtype(state: StateSpec, dtype: torch.dtype) -> torch.dtype:
    """Return the element type a state is stored in."""
    return torch.float32 if state.dtype == "float32" else dtype


def bytes_per_block(
    spec: ModelSpec, block_size: int, dtype: torch.dtype, codes: torch.dtype | None = None
) -> int:
    """Return the bytes one block takes over all layers, factors included."""
    layers = [stored_parts(layer, dtype, codes).values() for layer in spec.layers]
    return block_size * sum(part.num_bytes for parts in layers for part in parts)


def bytes_per_sequence(spec: ModelSpec, dtype: torch.dtype) -> int:
    """Return the bytes of the states of one sequence over all layers."""
    states = [state for layer in spec.layers for state in layer.states.values()]
    return sum(state.num_values * state_dtype(state, dtype).itemsize for state in states)
