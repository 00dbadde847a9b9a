"""Soft mixture of experts. T tokens, D model width, E experts, S slots."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.core.errors import UnsupportedError
from weft.nn.context import StepContext
from weft.nn.moe.experts import Experts
from weft.nn.moe.router import Router
from weft.spec import MoESpec


class SoftMoE(nn.Module):
    """Every slot is a mean of a sequence's tokens, every token a mean of the slots' results.

    Nothing is chosen, so nothing is dropped or unbalanced; but a token sees later ones, so this
    is a part of encoders (Puigcerver et al. 2023, arXiv:2308.00951).
    """

    def __init__(
        self,
        dim: int,
        spec: MoESpec,
        *,
        layer: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build router and experts.

        Raises:
            UnsupportedError: the mixture has a shared expert or a latent width.
        """
        super().__init__()
        if spec.shared is not None or spec.latent_dim is not None:
            raise UnsupportedError(
                "a soft mixture has no shared expert and no latent width",
                fix="leave out shared and latent_dim, or choose another router kind",
            )
        self.spec = spec
        where = {"device": device, "dtype": dtype}
        num_slots = spec.num_experts * spec.router.num_slots
        slots = MoESpec(num_slots, 1, spec.expert, spec.router)
        self.router = Router(dim, slots, layer=layer, **where)
        self.experts = Experts(spec.num_experts, dim, spec.expert, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Mix the tokens of each sequence of [T, D] through the slots."""
        return torch.cat([self._sequence(rows_TD) for rows_TD in x_TD.split(ctx.lengths)])

    def _sequence(self, x_TD: Tensor) -> Tensor:
        dispatch_TS, combine_TS = dispatch_and_combine(self.router.logits(x_TD))
        slots_SD = (dispatch_TS.t() @ x_TD.float()).to(x_TD.dtype)
        num_slots = self.spec.router.num_slots
        counts_E = torch.full((self.spec.num_experts,), num_slots, device=x_TD.device)
        return (combine_TS @ self.experts.rows(slots_SD, counts_E).float()).to(x_TD.dtype)


def dispatch_and_combine(logits_TS: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of tokens in slots (columns sum to 1) and of slots in tokens (rows do).

    Both are [T, S]; the first is a softmax over tokens, the second over slots.
    """
    return logits_TS.softmax(0), logits_TS.softmax(1)
