"""Multi-token prediction modules (DeepSeek-V3, arXiv:2412.19437, section 2.2).

T tokens, D model width. Module k, counted from 1, joins what the module before it knows at
position i with the embedding of token i + k, runs one block, and predicts token i + k + 1.
Embedding and output projection are the model's own. As in transformers, module 1 takes the model's
normalised hidden states, and each passes on its own normalised ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.nn.norm import build_norm
from weft.spec import NormSpec


class MTPModule(nn.Module):
    """Norms of both inputs, a projection from 2 D to D, a block, and an output norm."""

    def __init__(
        self,
        dim: int,
        block: nn.Module,
        norm: NormSpec,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        self.embed_norm = build_norm(dim, norm, **where)
        self.hidden_norm = build_norm(dim, norm, **where)
        self.project = Linear(2 * dim, dim, bias=False, **where)
        self.block = block
        self.norm = build_norm(dim, norm, **where)

    def forward(self, hidden_TD: Tensor, embedded_TD: Tensor, ctx: StepContext) -> Tensor:
        """Return hidden states one token further ahead, normalised, [T, D].

        Args:
            hidden_TD: Of the model or of the module before.
            embedded_TD: Embedding of the token that follows what ``hidden_TD`` has seen.
            ctx: The model's own.
        """
        joined_TE = torch.cat((self.embed_norm(embedded_TD), self.hidden_norm(hidden_TD)), dim=-1)
        return self.norm(self.block(self.project(joined_TE), ctx))


def shift(values_T: Tensor, lengths: tuple[int, ...], steps: int, fill: int) -> Tensor:
    """Return what lies ``steps`` tokens ahead in the same document, ``fill`` beyond its end.

    >>> shift(torch.tensor([1, 2, 3, 7, 8]), (3, 2), 1, -100).tolist()
    [2, 3, -100, 8, -100]
    """
    documents = []
    for document in values_T.split(lengths):
        ahead = document[steps:]
        documents.append(torch.cat((ahead, document.new_full((len(document) - len(ahead),), fill))))
    return torch.cat(documents)
