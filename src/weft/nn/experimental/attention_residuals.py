"""Attention residuals: each branch chooses among what came before it in depth. Experimental.

T tokens, N sources (the embedding, finished blocks, the unfinished one), D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Branch = Callable[[Tensor], Tensor]


class DepthReader(nn.Module):
    """Softmax attention of one learnt query to the sources of each token.

    ``sum_n softmax_n(query · rms_norm(source_n)) source_n`` (Attention Residuals, Kimi Team 2026,
    arXiv:2603.15031). The query starts at zero, which is the mean of the sources.
    """

    def __init__(
        self,
        dim: int,
        *,
        norm_eps: float = 1e-6,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.norm_eps = norm_eps
        self.query = nn.Parameter(torch.zeros(dim, device=device, dtype=dtype))

    def forward(self, sources_TND: Tensor) -> Tensor:
        """Return the mixed sources, [T, D]; scores and sum are float32 or wider."""
        wide = torch.promote_types(sources_TND.dtype, torch.float32)
        wide_TND = sources_TND.to(wide)
        keys_TND = F.rms_norm(wide_TND, wide_TND.shape[-1:], eps=self.norm_eps)
        weights_TN = (keys_TND @ self.query.to(wide)).softmax(-1)
        return torch.einsum("tn,tnd->td", weights_TN, wide_TND).to(sources_TND.dtype)


def run_in_blocks(
    embedded_TD: Tensor, branches: Sequence[Branch], readers: Sequence[Branch], block_size: int
) -> Tensor:
    """Run branches over the sums of blocks of ``block_size`` branches, [T, D].

    The sources of a branch are the embedding, the sum of each finished block and what the
    unfinished one has summed so far; blocks of one keep every branch apart. ``readers`` has one
    per branch and a last one for the result.
    """
    finished, unfinished = [embedded_TD], []
    for index, (branch, reader) in enumerate(zip(branches, readers[:-1], strict=True), start=1):
        out_TD = branch(reader(torch.stack([*finished, *unfinished], dim=1)))
        unfinished = [out_TD + unfinished[0]] if unfinished else [out_TD]
        if index % block_size == 0:
            finished, unfinished = [*finished, *unfinished], []
    return readers[-1](torch.stack([*finished, *unfinished], dim=1))
