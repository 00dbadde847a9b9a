"""Loss and gradient chunk by chunk: logits exist for one chunk of tokens at a time.

T tokens, C tokens of a chunk, D width, V vocabulary.

Cross-entropy's gradient is known up to one factor as soon as its logits are, so the forward
pass turns each chunk's logits into their gradient in place and multiplies it out at once:
three matrix products in all, as with full logits (the idea of Liger Kernel, Hsu et al. 2024,
arXiv:2410.10989). Log-probabilities have a factor per token that only the backward pass
knows, so they keep one number per token and compute the logits again, a fourth product;
a batch of a single chunk keeps its logits instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weft.ops.dispatch import needs_grad
from weft.ops.linear.onednn import matmul
from weft.ops.linear.rows import pad_rows
from weft.ops.loss.rows import softmax_gradient_, softmax_stats
from weft.ops.loss.softcap import soft_cap, soft_cap_slope

NO_TOKEN = -(2**63)  # an ignore index that no target can have


def linear_cross_entropy(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    labels_T: Tensor,
    chunk_size: int,
    ignore_index: int,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (summed negative log-likelihood, number of labels that count)."""
    dtype = _compute_type(hidden_TD)
    labels_T = labels_T.contiguous()
    count = (labels_T != ignore_index).sum()
    if needs_grad(hidden_TD, weight_VD):
        loss = _CrossEntropy.apply(
            hidden_TD, weight_VD, labels_T, chunk_size, ignore_index, softcap, dtype
        )
        return loss, count  # pyrefly: ignore
    hidden_TD, weight_VD = hidden_TD.to(dtype), weight_VD.to(dtype)
    gradients = _Gradients(hidden_TD, weight_VD, False, False)
    return _cross_entropy(labels_T, chunk_size, ignore_index, softcap, gradients), count


def linear_log_probs(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    targets_T: Tensor,
    temperature: float,
    chunk_size: int,
    softcap: float | None = None,
) -> Tensor:
    """Return the log-probability of each target under softmax(logits / temperature)."""
    dtype, scale = _compute_type(hidden_TD), 1.0 / temperature
    targets_T = targets_T.contiguous()
    if needs_grad(hidden_TD, weight_VD):
        return _LogProbs.apply(  # pyrefly: ignore
            hidden_TD, weight_VD, targets_T, scale, chunk_size, softcap, dtype
        )
    inputs = (hidden_TD.to(dtype), weight_VD.to(dtype), targets_T)
    return _log_probs(*inputs, scale, chunk_size, softcap)[0]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: Tensor,
        weight_VD: Tensor,
        labels_T: Tensor,
        chunk: int,
        ignore: int,
        softcap: float | None,
        dtype: torch.dtype,
    ) -> Tensor:
        gradients = _Gradients(hidden_TD.to(dtype), weight_VD.to(dtype), *ctx.needs_input_grad[:2])
        loss = _cross_entropy(labels_T, chunk, ignore, softcap, gradients)
        ctx.save_for_backward(*gradients.results(hidden_TD.dtype, weight_VD.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        # The saved tensors are scaled anew, not in place: a retained graph may come again.
        scaled = (None if t is None else t * grad.to(t.dtype) for t in ctx.saved_tensors)
        return (*scaled, None, None, None, None, None)


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: Tensor,
        weight_VD: Tensor,
        targets_T: Tensor,
        scale: float,
        chunk: int,
        softcap: float | None,
        dtype: torch.dtype,
    ) -> Tensor:
        inputs = (hidden_TD.to(dtype), weight_VD.to(dtype), targets_T)
        logp_T, lse_T, logits = _log_probs(*inputs, scale, chunk, softcap)
        ctx.save_for_backward(*inputs, lse_T, logits)
        ctx.scale, ctx.chunk, ctx.types = scale, chunk, (hidden_TD.dtype, weight_VD.dtype)
        ctx.softcap = softcap
        return logp_T

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any, grad_T: Tensor
    ) -> tuple[Tensor | None, ...]:
        hidden_TD, weight_VD, targets_T, lse_T, kept = ctx.saved_tensors
        gradients = _Gradients(hidden_TD, weight_VD, *ctx.needs_input_grad[:2])
        grad_T = grad_T.to(lse_T.dtype).contiguous()
        for part in _chunks(len(targets_T), ctx.chunk):
            logits = kept.clone() if kept is not None else None
            if logits is None:
                logits = soft_cap(_product(hidden_TD[part], weight_VD), ctx.softcap)
            rows = (targets_T[part], NO_TOKEN, ctx.scale, lse_T[part], grad_T[part])
            gradients.add(part, _logit_gradient(logits, ctx.softcap, *rows))
        return (*gradients.results(*ctx.types), None, None, None, None, None)


class _Gradients:
    """Gradients of hidden states and weight, added up over chunks of logit gradients."""

    def __init__(
        self, hidden_TD: Tensor, weight_VD: Tensor, for_hidden: bool, for_weight: bool
    ) -> None:
        self.hidden_TD, self.weight_VD = hidden_TD, weight_VD
        self.dhidden_TD = torch.empty_like(hidden_TD) if for_hidden else None
        self.for_weight = for_weight
        self.dweight_VD: Tensor | None = None

    @property
    def needed(self) -> bool:
        return self.for_weight or self.dhidden_TD is not None

    def add(self, part: slice, dlogits_CV: Tensor) -> None:
        dlogits_CV = dlogits_CV.to(self.hidden_TD.dtype)  # capped ones are wide
        if self.dhidden_TD is not None:
            self.dhidden_TD[part] = matmul(dlogits_CV, self.weight_VD)
        if self.for_weight:
            self._add_weight(dlogits_CV.t(), self.hidden_TD[part])

    def _add_weight(self, dlogits_VC: Tensor, hidden_CD: Tensor) -> None:
        if self.dweight_VD is None:
            self.dweight_VD = matmul(dlogits_VC, hidden_CD)
        elif self.dweight_VD.dtype == hidden_CD.dtype and hidden_CD.dtype != torch.bfloat16:
            self.dweight_VD.add_(matmul(dlogits_VC, hidden_CD))
        else:  # a sum over many chunks would lose bits in bfloat16
            self.dweight_VD = self.dweight_VD.float().add_(torch.mm(dlogits_VC, hidden_CD))

    def results(
        self, hidden_type: torch.dtype, weight_type: torch.dtype
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return both sums in the types of the inputs they belong to."""
        dhidden_TD, dweight_VD = self.dhidden_TD, self.dweight_VD
        if self.for_weight and dweight_VD is None:  # no token at all
            dweight_VD = torch.zeros_like(self.weight_VD)
        return (
            None if dhidden_TD is None else dhidden_TD.to(hidden_type),
            None if dweight_VD is None else dweight_VD.to(weight_type),
        )


def _cross_entropy(
    labels_T: Tensor, chunk: int, ignore: int, softcap: float | None, gradients: _Gradients
) -> Tensor:
    hidden_TD, weight_VD = gradients.hidden_TD, gradients.weight_VD
    losses = []
    for part in _chunks(len(labels_T), chunk):
        logits_CV = soft_cap(_product(hidden_TD[part], weight_VD), softcap)
        lse_C, logp_C = softmax_stats(logits_CV, labels_T[part], ignore, 1.0)
        losses.append(logp_C.sum())
        if gradients.needed:
            rows = (labels_T[part], ignore, 1.0, lse_C, torch.full_like(lse_C, -1.0))
            gradients.add(part, _logit_gradient(logits_CV, softcap, *rows))
    return -torch.stack(losses).sum() if losses else _wide_zeros(hidden_TD, 1).sum()


def _logit_gradient(
    logits_CV: Tensor,
    softcap: float | None,
    targets_C: Tensor,
    ignore: int,
    scale: float,
    lse_C: Tensor,
    row_grad_C: Tensor,
) -> Tensor:
    """Return the gradient of what the weights gave, before capping; overwrites ``logits_CV``."""
    slope_CV = None if softcap is None else soft_cap_slope(logits_CV, softcap)
    grad_CV = softmax_gradient_(logits_CV, targets_C, ignore, scale, lse_C, row_grad_C)
    return grad_CV if slope_CV is None else grad_CV.mul_(slope_CV)


def _log_probs(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    targets_T: Tensor,
    scale: float,
    chunk: int,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return (log-probabilities, log sum exp, the logits if they are one chunk)."""
    stats, logits_CV = [], None
    for part in _chunks(len(targets_T), chunk):
        hidden_CD = hidden_TD[part]
        # The sampler pads its rows too: what it draws has the same log-probability here.
        logits_CV = _product(pad_rows(hidden_CD), weight_VD)[: len(hidden_CD)]
        logits_CV = soft_cap(logits_CV, softcap)
        stats.append(softmax_stats(logits_CV, targets_T[part], NO_TOKEN, scale))
    if len(stats) == 1:
        return stats[0][1], stats[0][0], logits_CV
    if not stats:
        return _wide_zeros(hidden_TD, 0), _wide_zeros(hidden_TD, 0), None
    return torch.cat([logp for _, logp in stats]), torch.cat([lse for lse, _ in stats]), None


def _compute_type(hidden_TD: Tensor) -> torch.dtype:
    """Return the type a linear layer would compute in: autocast's, else that of its input."""
    device_type = hidden_TD.device.type
    if hidden_TD.dtype == torch.float32 and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return hidden_TD.dtype


def _product(hidden_CD: Tensor, weight_VD: Tensor) -> Tensor:
    return matmul(hidden_CD, weight_VD.t())


def _chunks(num_tokens: int, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, num_tokens, chunk)]


def _wide_zeros(like: Tensor, size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.promote_types(like.dtype, torch.float32)).to(like.device)
