"""WKV by a prefix scan inside chunks and one state carried between them.

T tokens, B sequences, D channels, M chunks, C tokens of a chunk.

``combine`` is associative, so the sums of all prefixes of a chunk take log2(C) passes over it
(Hillis and Steele 1986) instead of C.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.linear_attention.chunks import chunk_size, cut
from weft.ops.rwkv.reference import EMPTY, Sums, combine, initial_states, work_dtype

CHUNK_SIZE = 64


def wkv(
    decay_D: Tensor,
    bonus_D: Tensor,
    k_TD: Tensor,
    v_TD: Tensor,
    lengths: tuple[int, ...],
    initial_B3D: Tensor | None,
    size: int = CHUNK_SIZE,
) -> tuple[Tensor, Tensor]:
    """Compute what the reference computes."""
    work = work_dtype(v_TD)
    decay_D, bonus_D = decay_D.to(work), bonus_D.to(work)
    chunks = cut(lengths, chunk_size(lengths, size, 1), k_TD.device)
    k_MCD, v_MCD = (chunks.split(x_TD[:, None].to(work)).squeeze(1) for x_TD in (k_TD, v_TD))
    ones_MCD = torch.ones_like(v_MCD)
    prefixes = _prefix_sums((v_MCD, ones_MCD, k_MCD), decay_D)
    fill_M1 = torch.tensor(chunks.fill_M, device=k_TD.device)[:, None]
    last_M1D = (fill_M1 - 1)[..., None].expand(-1, 1, k_MCD.shape[-1])
    total_MD, weight_MD, top_MD = (x.gather(1, last_M1D).squeeze(1) for x in prefixes)
    aged_MD = fill_M1 * decay_D

    def advance(rows: slice, state_B3D: Tensor) -> Tensor:
        total_BD, weight_BD, top_BD = state_B3D.unbind(1)
        old = (total_BD, weight_BD, top_BD - aged_MD[rows])
        return torch.stack(combine(old, (total_MD[rows], weight_MD[rows], top_MD[rows])), dim=1)

    starts_M3D, final_B3D = chunks.carry(initial_states(initial_B3D, lengths, v_TD), advance)
    seen = _before(prefixes, starts_M3D, decay_D)
    total_MCD, weight_MCD, _ = combine(seen, (v_MCD, ones_MCD, bonus_D + k_MCD))
    outputs_TD = chunks.join((total_MCD / weight_MCD)[:, None], len(v_TD)).squeeze(1)
    return outputs_TD.to(v_TD.dtype), final_B3D


def _prefix_sums(sums_MCD: Sums, decay_D: Tensor) -> Sums:
    """Return the sums of each token and all before it in its chunk."""
    distance = 1
    while distance < sums_MCD[0].shape[1]:
        total, weight, top = (x[:, :-distance] for x in sums_MCD)
        right = (sums_MCD[0][:, distance:], sums_MCD[1][:, distance:], sums_MCD[2][:, distance:])
        later = combine((total, weight, top - distance * decay_D), right)
        total, weight, top = (
            torch.cat([x[:, :distance], y], dim=1) for x, y in zip(sums_MCD, later, strict=True)
        )
        sums_MCD = (total, weight, top)
        distance *= 2
    return sums_MCD


def _before(prefixes_MCD: Sums, starts_M3D: Tensor, decay_D: Tensor) -> Sums:
    """Return the sums of everything before each token, the chunk's start state included."""
    first = (0.0, 0.0, EMPTY)
    total, weight, top = (
        torch.cat([torch.full_like(x[:, :1], empty), x[:, :-1]], dim=1)
        for x, empty in zip(prefixes_MCD, first, strict=True)
    )
    age_C1 = torch.arange(total.shape[1], device=total.device)[:, None]
    start_total, start_weight, start_top = starts_M3D[:, :, None].unbind(1)
    start = (start_total, start_weight, start_top - age_C1 * decay_D)
    return combine(start, (total, weight, top))
