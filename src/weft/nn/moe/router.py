"""The router. T tokens, D model width, E experts, K experts per token."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.nn.moe.choice import (
    hash_experts,
    random_second,
    scores_of,
    top_experts,
    weights_of,
)
from weft.ops import linear
from weft.ops.dispatch import no_autocast
from weft.spec import MoESpec


class Routing(NamedTuple):
    """Each token's experts.

    Attributes:
        ids_TK: Chosen experts; E where a choice was left out.
        weights_TK: Weight of each choice, float32.
        scores_TE: Scores of all experts, float32.
        logits_TE: What the scores were made of, float32.
    """

    ids_TK: Tensor
    weights_TK: Tensor
    scores_TE: Tensor
    logits_TE: Tensor


class Router(nn.Module):
    """Scores experts for each token and chooses among them.

    ``correction_bias`` is a float32 buffer, changed by ``weft.nn.moe.losses.corrected_bias`` from
    the load and by no gradient.
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
        super().__init__()
        self.spec, self.layer = spec, layer
        shape, where = (spec.num_experts, dim), {"device": device, "dtype": dtype}
        router = spec.router
        self.weight: nn.Parameter | None
        self.bias: nn.Parameter | None
        self.noise_weight: nn.Parameter | None
        self.correction_bias: Tensor | None
        learns_noise = router.noise > 0 and router.noise_kind == "learnt"
        self._add("weight", shape if router.kind != "hash" else None, where)
        self._add("bias", shape[:1] if router.bias else None, where)
        self._add("noise_weight", shape if learns_noise else None, where)
        zeros_E = torch.zeros(spec.num_experts, dtype=torch.float32, device=device)
        self.register_buffer("correction_bias", zeros_E if router.correction_bias else None)
        if self.weight is not None and not self.weight.is_meta:
            self.init_parameters(torch.Generator().manual_seed(layer))

    def _add(self, name: str, shape: tuple[int, ...] | None, where: dict[str, Any]) -> None:
        parameter = None if shape is None else nn.Parameter(torch.empty(shape, **where))
        self.register_parameter(name, parameter)

    @torch.no_grad()
    def init_parameters(self, generator: torch.Generator) -> None:
        """Start with scores near uniform, no bias and no learnt noise."""
        if self.weight is not None:
            values = torch.empty(self.weight.shape, dtype=torch.float32)
            self.weight.copy_(values.normal_(0.0, values.shape[1] ** -0.5, generator=generator))
        for tensor in (self.bias, self.noise_weight, self.correction_bias):
            if tensor is not None:
                tensor.zero_()

    def forward(
        self, x_TD: Tensor, *, tokens_T: Tensor | None = None, given_TK: Tensor | None = None
    ) -> Routing:
        """Route [T, D].

        Args:
            x_TD: The tokens' hidden states.
            tokens_T: Token ids, for hash routing.
            given_TK: Experts to use whatever the scores are (routing replay); weights are still
                those of this router.
        """
        spec = self.spec.router
        logits_TE = self.logits(x_TD)
        scores_TE = scores_of(logits_TE, spec)
        ids_TK = self._choose(logits_TE, scores_TE, tokens_T) if given_TK is None else given_TK
        weights_TK = weights_of(scores_TE, logits_TE, ids_TK, spec)
        return Routing(ids_TK, weights_TK, scores_TE, logits_TE)

    def logits(self, x_TD: Tensor) -> Tensor:
        """Return the outputs, [T, E], float32 in every precision, with noise while training."""
        if self.weight is None:  # hashed tokens: every expert is worth the same
            return x_TD.new_zeros(x_TD.shape[0], self.spec.num_experts, dtype=torch.float32)
        with no_autocast(x_TD.device):
            wide_TD = x_TD.to(torch.promote_types(x_TD.dtype, torch.float32))
            return self._noisy(wide_TD) if self._has_noise else self._linear(wide_TD, self.weight)

    @property
    def _has_noise(self) -> bool:
        return self.training and self.spec.router.noise > 0

    def _noisy(self, x_TD: Tensor) -> Tensor:
        spec = self.spec.router
        assert self.weight is not None
        if spec.noise_kind == "jitter":
            x_TD = x_TD * (1 + (2 * torch.rand_like(x_TD) - 1) * spec.noise)
            return self._linear(x_TD, self.weight)
        logits_TE = self._linear(x_TD, self.weight)
        noise_TE = torch.randn_like(logits_TE) * spec.noise
        if self.noise_weight is not None:
            noise_TE = noise_TE * F.softplus(linear(x_TD, self.noise_weight.to(x_TD.dtype)))
        return logits_TE + noise_TE

    def _linear(self, x_TD: Tensor, weight_ED: Tensor) -> Tensor:
        bias_E = None if self.bias is None else self.bias.to(x_TD.dtype)
        return linear(x_TD, weight_ED.to(x_TD.dtype), bias_E)

    @torch.no_grad()
    def _choose(self, logits_TE: Tensor, scores_TE: Tensor, tokens_T: Tensor | None) -> Tensor:
        spec, num_chosen = self.spec.router, self.spec.top_k
        if spec.kind == "hash":
            assert tokens_T is not None, "hash routing needs the token ids"
            return hash_experts(tokens_T, self.spec.num_experts, num_chosen, self.layer)
        ranks_TE = logits_TE if spec.chosen_only else scores_TE
        if self.correction_bias is not None:
            ranks_TE = ranks_TE + self.correction_bias
        ids_TK = top_experts(ranks_TE, num_chosen, spec)
        if spec.kind == "gshard" and self.training:
            ids_TK = random_second(ids_TK, scores_TE)
        return ids_TK

    def extra_repr(self) -> str:
        return f"{self.spec.num_experts} experts, {self.spec.router.kind}, top {self.spec.top_k}"
