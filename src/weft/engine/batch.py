"""From a ``StepPlan`` to the tensors of one forward pass, without a Python loop over tokens.

Shapes: B items, T tokens of all items, M blocks of the longest item, S its positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weft.nn.context import PagedBatch
from weft.ops import PagedLayout, stable_num_rows
from weft.sched.plan import StepItem


@dataclass(frozen=True)
class StepBatch:
    """One step as tensors, and who samples in it.

    Attributes:
        tokens_T: Token ids of all items end to end.
        paged: Positions, slots and layout for ``StepContext.paged``.
        sample_ids: Sequences that draw a token, in order.
        sample_rows_R: Index into T of the token whose logits each of them draws from.
        sample_positions_R: Position of the token each of them draws.
    """

    tokens_T: Tensor
    paged: PagedBatch
    sample_ids: tuple[int, ...]
    sample_rows_R: Tensor
    sample_positions_R: NDArray[np.int64]


def pad_items(items: Sequence[StepItem]) -> list[StepItem]:
    """Repeat one token until the others in a step cannot change a token's bits.

    The copies compute what the token computes, so they write into its slot what it writes. The
    one with the least context is taken, where attention costs least. A recurrent state moves on
    with every token, so copies need one that nobody reads (``StateSlots.scratch``).
    """
    num_tokens = sum(len(item.tokens) for item in items)
    first = min(items, key=lambda item: item.start)
    copy = StepItem(first.id, first.tokens[:1], first.start, first.blocks, sample=False)
    return [*items, *[copy] * (stable_num_rows(num_tokens) - num_tokens)]


def build_batch(
    items: Sequence[StepItem],
    block_size: int,
    device: torch.device | str = "cpu",
    state_slots: Sequence[int] | None = None,
) -> StepBatch:
    """Lay the items end to end; ``state_slots`` says where each one's recurrent states live."""
    lengths_B = np.array([len(item.tokens) for item in items], dtype=np.int64)
    starts_B = np.array([item.start for item in items], dtype=np.int64)
    contexts_B = starts_B + lengths_B
    ends_B = lengths_B.cumsum()
    num_tokens = int(ends_B[-1])
    positions_T = np.arange(num_tokens) + np.repeat(contexts_B - ends_B, lengths_B)
    slots_BS = _slot_table([item.blocks for item in items], contexts_B, block_size)
    slots_T = slots_BS[np.repeat(np.arange(len(items)), lengths_B), positions_T]
    samples_B = np.array([item.sample for item in items], dtype=np.bool_)
    lengths = tuple(lengths_B.tolist())
    layout = PagedLayout(
        query_lengths=lengths,
        context_lengths=tuple(contexts_B.tolist()),
        slots_BS=_tensor(slots_BS, device),
        decode=num_tokens == len(items),
    )
    return StepBatch(
        tokens_T=_tensor(_flat((item.tokens for item in items), num_tokens), device),
        paged=PagedBatch(
            _tensor(positions_T, device),
            _tensor(slots_T, device),
            layout,
            None if state_slots is None else _tensor(np.array(state_slots), device),
        ),
        sample_ids=tuple(item.id for item in items if item.sample),
        sample_rows_R=_tensor(ends_B[samples_B] - 1, device),
        sample_positions_R=contexts_B[samples_B],
    )


def _slot_table(
    tables: Sequence[tuple[int, ...]], contexts_B: NDArray[np.int64], block_size: int
) -> NDArray[np.int64]:
    """Return the cache slot of every position, [B, S], 0 beyond a sequence's end."""
    num_blocks_B = np.array([len(table) for table in tables], dtype=np.int64)
    blocks_BM = np.zeros((len(tables), int(num_blocks_B.max())), dtype=np.int64)
    used_BM = np.arange(blocks_BM.shape[1]) < num_blocks_B[:, None]
    blocks_BM[used_BM] = _flat(tables, int(num_blocks_B.sum()))
    max_context = int(contexts_B.max())
    slots_BMP = blocks_BM[:, :, None] * block_size + np.arange(block_size)
    slots_BS = slots_BMP.reshape(len(tables), -1)[:, :max_context]
    # Backends that gather whole rows read padding too: it must name one slot, not someone's block.
    return np.where(np.arange(max_context) < contexts_B[:, None], slots_BS, 0)


def _flat(parts: Iterable[tuple[int, ...]], size: int) -> NDArray[np.int64]:
    return np.fromiter(chain.from_iterable(parts), dtype=np.int64, count=size)


def _tensor(array: NDArray[np.int64], device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
