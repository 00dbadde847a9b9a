"""Manifold-constrained hyper-connections (mHC, arXiv:2512.24880). Experimental.

T tokens, S residual streams, D model width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinkhorn(weights_TSS: Tensor, num_iterations: int, eps: float) -> Tensor:
    """Divide columns, then rows and columns in turn, by their sums until both are near one.

    Sinkhorn and Knopp 1967. ``num_iterations`` counts the divisions of columns; entries are
    positive and ``eps`` is added to every sum.
    """
    weights_TSS = weights_TSS / (weights_TSS.sum(-2, keepdim=True) + eps)
    for _ in range(num_iterations - 1):
        weights_TSS = weights_TSS / (weights_TSS.sum(-1, keepdim=True) + eps)
        weights_TSS = weights_TSS / (weights_TSS.sum(-2, keepdim=True) + eps)
    return weights_TSS


class HyperConnection(nn.Module):
    """A residual branch between several streams in place of ``x + f(x)``.

    ``streams' = comb^T streams + post f(sum_s pre_s streams_s)``, where pre, post and comb depend
    on the token, and comb is doubly stochastic, so that mixing never enlarges the streams.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_streams: int = 4,
        num_iterations: int = 20,
        eps: float = 1e-6,
        norm_eps: float = 1e-6,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_streams = num_streams
        self.num_iterations = num_iterations
        self.eps = eps
        self.norm_eps = norm_eps
        num_weights = (2 + num_streams) * num_streams
        where = {"device": device, "dtype": dtype}
        self.project = nn.Linear(num_streams * dim, num_weights, bias=False, **where)
        self.base = nn.Parameter(torch.zeros(num_weights, **where))
        self.scales = nn.Parameter(torch.ones(3, **where))

    def forward(self, streams_TSD: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the streams after ``branch``, which maps [T, D] to [T, D]."""
        pre_TS, post_TS, comb_TSS = self.weights(streams_TSD)
        x_TD = torch.einsum("ts,tsd->td", pre_TS, streams_TSD.float()).to(streams_TSD.dtype)
        new_TSD = post_TS.to(x_TD.dtype).unsqueeze(-1) * branch(x_TD).unsqueeze(1)
        return new_TSD + comb_TSS.to(x_TD.dtype).transpose(1, 2) @ streams_TSD

    def weights(self, streams_TSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return pre and post, [T, S], and comb, [T, S, S], float32."""
        num = self.num_streams
        sizes = (num, num, num * num)
        flat_TE = streams_TSD.flatten(1).float()
        flat_TE = F.rms_norm(flat_TE, flat_TE.shape[1:], eps=self.norm_eps)
        raw_TW = F.linear(flat_TE, self.project.weight.float())
        pre_TS, post_TS, comb_TW = (
            raw * scale + base
            for raw, scale, base in zip(
                raw_TW.split(sizes, -1),
                self.scales.float(),
                self.base.float().split(sizes),
                strict=True,
            )
        )
        comb_TSS = comb_TW.unflatten(-1, (num, num)).softmax(-1) + self.eps
        return (
            pre_TS.sigmoid() + self.eps,
            2 * post_TS.sigmoid(),
            sinkhorn(comb_TSS, self.num_iterations, self.eps),
        )
