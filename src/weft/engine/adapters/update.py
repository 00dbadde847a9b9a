"""Adding to each row of a linear layer's output what the row's adapter says.

Two forms of the same sum: one batched product over groups that are filled up to one size, which is
several times faster where groups are alike, and one product per group, in which a row's bits do not
depend on the other rows.

T rows of a step, A of them with an adapter, S slots, G neighbouring slots that are used, N rows of
the largest group, P = G N, I input width, O output width, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weft.ops import grouped_linear


@dataclass(frozen=True)
class SlotWeights:
    """The pairs of one layer, slot by slot; the scale is in B.

    Attributes:
        a_SRI: Zero where a slot's adapter has a smaller rank, or none for this layer.
        b_SOR: Likewise.
    """

    a_SRI: Tensor
    b_SOR: Tensor


# Filling groups up may make this many rows of one.
_MAX_FILL = 2


@dataclass(frozen=True)
class EvenGroups:
    """Groups filled up to one size.

    Attributes:
        slots: G slots from the first to the last that is used.
        rows_P: Which of T each place holds; any row where it only fills up.
        places_A: Places of the rows, sorted by slot; none where nothing fills up.
    """

    slots: slice
    rows_P: Tensor
    places_A: Tensor | None

    @classmethod
    def of(cls, rows_A: Tensor, counts_S: Tensor) -> EvenGroups | None:
        """Fill groups up; none where that would be much work for nobody."""
        used = counts_S.nonzero().flatten()
        if not len(used):
            return None
        first, last = int(used[0]), int(used[-1])
        size = int(counts_S.max())
        num_places = (last + 1 - first) * size
        if num_places > _MAX_FILL * len(rows_A):
            return None
        starts_S = counts_S.cumsum(0) - counts_S
        # Place of the first row of each slot, less its place among A.
        shifts_S = (torch.arange(len(counts_S)) - first) * size - starts_S
        places_A = torch.arange(len(rows_A)) + shifts_S.repeat_interleave(counts_S)
        rows_P = torch.zeros(num_places, dtype=torch.int64)
        rows_P[places_A] = rows_A
        fills = num_places > len(rows_A)
        return cls(slice(first, last + 1), rows_P, places_A if fills else None)

    def to(self, device: torch.device | str) -> EvenGroups:
        """Return the groups on a device."""
        places_A = None if self.places_A is None else self.places_A.to(device)
        return EvenGroups(self.slots, self.rows_P.to(device), places_A)


@dataclass(frozen=True)
class RowGroups:
    """Rows with adapters, sorted by slot.

    Attributes:
        rows_A: Their places among T.
        counts_S: How many each slot has, int64.
        even: The same rows, filled up; none where it costs too much or bits have to be stable.
    """

    rows_A: Tensor
    counts_S: Tensor
    even: EvenGroups | None

    @classmethod
    def of(
        cls,
        slots_T: Sequence[int],
        num_slots: int,
        device: torch.device | str = "cpu",
        *,
        stable: bool = False,
    ) -> RowGroups:
        """Group the rows of a step; slot -1 is a row without an adapter.

        With ``stable`` a row's update has the same bits whatever other rows there are, in float32
        on a CPU (see ``weft.ops.grouped``).
        """
        slots = torch.tensor(slots_T, dtype=torch.int64)
        order_T = slots.argsort(stable=True)
        rows_A = order_T[slots[order_T] >= 0]
        counts_S = torch.bincount(slots[rows_A], minlength=num_slots)
        even = None if stable else EvenGroups.of(rows_A, counts_S)
        even = None if even is None else even.to(device)
        return cls(rows_A.to(device), counts_S.to(device), even)


def add_updates(y_TO: Tensor, x_TI: Tensor, weights: SlotWeights, groups: RowGroups) -> None:
    """Add ``B A x`` of each row's slot to the row, in place."""
    if groups.even is None:
        updates_AO = _group_by_group(x_TI.index_select(0, groups.rows_A), weights, groups)
    else:
        updates_AO = _all_at_once(x_TI, weights, groups.even)
    y_TO.index_add_(0, groups.rows_A, updates_AO)


def add_updates_row_by_row(
    y_TO: Tensor, x_TI: Tensor, weights: SlotWeights, slots_T: Sequence[int]
) -> None:
    """Do what ``add_updates`` does, as the definition says it."""
    for row, slot in enumerate(slots_T):
        if slot >= 0:
            y_TO[row] += weights.b_SOR[slot] @ (weights.a_SRI[slot] @ x_TI[row])


def _all_at_once(x_TI: Tensor, weights: SlotWeights, even: EvenGroups) -> Tensor:
    a_GRI, b_GOR = weights.a_SRI[even.slots], weights.b_SOR[even.slots]
    x_GNI = x_TI.index_select(0, even.rows_P).unflatten(0, (a_GRI.shape[0], -1))
    x_GNR = torch.bmm(x_GNI, a_GRI.transpose(1, 2))
    updates_PO = torch.bmm(x_GNR, b_GOR.transpose(1, 2)).flatten(0, 1)
    return updates_PO if even.places_A is None else updates_PO.index_select(0, even.places_A)


def _group_by_group(x_AI: Tensor, weights: SlotWeights, groups: RowGroups) -> Tensor:
    x_AR = grouped_linear(x_AI, weights.a_SRI, None, groups.counts_S)
    return grouped_linear(x_AR, weights.b_SOR, None, groups.counts_S)
