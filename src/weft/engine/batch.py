"""From a ``StepPlan`` to the tensors of one forward pass, without a Python loop over tokens.

Guesses of a draft follow their item's tokens. Their slots go by their place; their positions, in a
tree, by how many tokens they follow. To attention each guess of a tree is a sequence of its own.

Shapes: B items, T tokens of all items, guesses included, M blocks of the longest item, S its
places, R rows whose logits are drawn from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weft.engine.trees import is_chain, unroll
from weft.nn.context import PagedBatch
from weft.ops import PagedLayout, stable_num_rows
from weft.sched.plan import Draft, StepItem


@dataclass(frozen=True)
class DrawRows:
    """Who draws tokens in a step, and from which of its rows. B sequences draw.

    Attributes:
        ids: The sequences, in order.
        positions_B: Position of the first token each of them draws.
        drafts: What each of them has guessed; it draws from its last token's row and, as long as
            the guesses hold, from theirs.
        rows_R: Index into T of those rows, sequence by sequence.
    """

    ids: tuple[int, ...]
    positions_B: NDArray[np.int64]
    drafts: tuple[Draft | None, ...]
    rows_R: NDArray[np.int64]


@dataclass(frozen=True)
class StepBatch:
    """One step as tensors, and who draws in it.

    Attributes:
        tokens_T: Token ids of all items end to end, each followed by its draft's.
        paged: Positions, slots and layout for ``StepContext.paged``.
        draws: Who draws, and from which rows.
    """

    tokens_T: Tensor
    paged: PagedBatch
    draws: DrawRows


def pad_items(items: Sequence[StepItem]) -> list[StepItem]:
    """Repeat one token until the others in a step cannot change a token's bits.

    The copies compute what the token computes, so they write into its slot what it writes. The
    one with the least context is taken, where attention costs least. A recurrent state moves on
    with every token, so copies need one of their own that is equal (``StateSlots.shadow``).
    """
    num_tokens = sum(item.num_tokens for item in items)
    first = min(items, key=lambda item: item.start)
    copy = StepItem(first.id, first.tokens[:1], first.start, first.blocks, sample=False)
    return [*items, *[copy] * (stable_num_rows(num_tokens) - num_tokens)]


def build_batch(
    items: Sequence[StepItem],
    block_size: int,
    device: torch.device | str = "cpu",
    state_slots: Sequence[int] | None = None,
    *,
    apart: bool = False,
) -> StepBatch:
    """Lay the items end to end.

    Args:
        items: What is computed.
        block_size: Positions per block.
        device: Where the tensors go.
        state_slots: Where each item's recurrent states live. Guesses would move them on, so items
            that have states have no guesses.
        apart: Where the order of a sum would depend on the other tokens of a step, compute each
            token by itself.
    """
    known_B = np.array([len(item.tokens) for item in items], dtype=np.int64)
    starts_B = np.array([item.start for item in items], dtype=np.int64)
    guesses_B = _num_guesses(items)
    lengths_B = known_B + guesses_B
    contexts_B = starts_B + lengths_B
    ends_B = lengths_B.cumsum()
    num_tokens = int(ends_B[-1])
    places_T = _positions(lengths_B, contexts_B)
    slots_BS = _slot_table([item.blocks for item in items], contexts_B, block_size)
    slots_T = slots_BS[np.repeat(np.arange(len(items)), lengths_B), places_T]
    drafts = enumerate(item.draft for item in items)
    trees = {row: draft for row, draft in drafts if draft is not None and not is_chain(draft)}
    positions_T = places_T
    if trees:
        lengths_B, contexts_B, slots_BS = unroll(trees, lengths_B, contexts_B, slots_BS)
        positions_T = _positions(lengths_B, contexts_B)
    layout = PagedLayout(
        query_lengths=tuple(lengths_B.tolist()),
        context_lengths=tuple(contexts_B.tolist()),
        slots_BS=_tensor(slots_BS, device),
        decode=num_tokens == len(lengths_B),
        apart=apart,
    )
    return StepBatch(
        tokens_T=_tensor(_flat(_tokens(items), num_tokens), device),
        paged=PagedBatch(
            _tensor(positions_T, device),
            _tensor(slots_T, device),
            layout,
            None if state_slots is None else _tensor(np.array(state_slots), device),
        ),
        draws=_draws(items, starts_B + known_B, ends_B, guesses_B),
    )


def _positions(lengths_B: NDArray[np.int64], contexts_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each token: the last ones of its row."""
    return np.arange(lengths_B.sum()) + np.repeat(contexts_B - lengths_B.cumsum(), lengths_B)


def _num_guesses(items: Sequence[StepItem]) -> NDArray[np.int64]:
    drafts = (item.draft for item in items)
    return np.array([0 if draft is None else len(draft.tokens) for draft in drafts], dtype=np.int64)


def _tokens(items: Iterable[StepItem]) -> Iterable[tuple[int, ...]]:
    for item in items:
        yield item.tokens
        if item.draft is not None:
            yield item.draft.tokens


def _draws(
    items: Sequence[StepItem],
    positions_B: NDArray[np.int64],
    ends_B: NDArray[np.int64],
    guesses_B: NDArray[np.int64],
) -> DrawRows:
    samples_B = np.array([item.sample for item in items], dtype=np.bool_)
    guesses_B = guesses_B[samples_B]
    last_rows_B = ends_B[samples_B] - 1
    rows_R, drafts = last_rows_B, tuple(repeat(None, len(last_rows_B)))
    if guesses_B.any():
        sizes_B = guesses_B + 1
        back_R = np.repeat(sizes_B.cumsum() - 1, sizes_B) - np.arange(sizes_B.sum())
        rows_R = np.repeat(last_rows_B, sizes_B) - back_R
        drafts = tuple(item.draft for item in items if item.sample)
    ids = tuple(item.id for item in items if item.sample)
    return DrawRows(ids, positions_B[samples_B], drafts, rows_R)


def _slot_table(
    tables: Sequence[tuple[int, ...]], contexts_B: NDArray[np.int64], block_size: int
) -> NDArray[np.int64]:
    """Return the cache slot of every position, [B, S], of the first one beyond a sequence's end."""
    num_blocks_B = np.array([len(table) for table in tables], dtype=np.int64)
    blocks_BM = np.zeros((len(tables), int(num_blocks_B.max())), dtype=np.int64)
    used_BM = np.arange(blocks_BM.shape[1]) < num_blocks_B[:, None]
    blocks_BM[used_BM] = _flat(tables, int(num_blocks_B.sum()))
    max_context = int(contexts_B.max())
    slots_BMP = blocks_BM[:, :, None] * block_size + np.arange(block_size)
    slots_BS = slots_BMP.reshape(len(tables), -1)[:, :max_context]
    # Backends that gather whole rows read padding too, with weight zero: it must name a slot of the
    # sequence itself, for NaN of another one would survive that.
    return np.where(np.arange(max_context) < contexts_B[:, None], slots_BS, slots_BS[:, :1])


def _flat(parts: Iterable[tuple[int, ...]], size: int) -> NDArray[np.int64]:
    return np.fromiter(chain.from_iterable(parts), dtype=np.int64, count=size)


def _tensor(array: NDArray[Any], device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
