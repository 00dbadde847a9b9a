"""The two row passes under both losses: statistics of softmax, and its gradient in place.

C chunk rows, V vocabulary. ``targets_C`` may hold ``ignore``, a row that does not count.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.native.bindings import TYPE_CODES, is_plain, load_library, num_threads


def softmax_stats(
    logits_CV: Tensor, targets_C: Tensor, ignore: int, scale: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Return (log sum exp of scale * logits, log-probability of the target or 0), each [C].

    ``scale`` is one number or float32 [C]. In C a row's numbers depend on that row alone.

    Raises:
        IndexError: A target outside the vocabulary.
    """
    library = load_library() if _is_native(logits_CV) else None
    if library is None:
        return _torch_stats(logits_CV, targets_C, ignore, scale)
    num_rows, vocab_size = logits_CV.shape
    lse_C, logp_C = torch.empty(num_rows), torch.empty(num_rows)
    scales = scale if isinstance(scale, Tensor) else torch.tensor(scale, dtype=torch.float32)
    num_bad = library.functions.weft_softmax_stats(
        logits_CV.data_ptr(), TYPE_CODES[logits_CV.dtype], targets_C.data_ptr(), ignore,
        scales.data_ptr(), scales.dim(), num_rows, vocab_size, lse_C.data_ptr(),
        logp_C.data_ptr(), num_threads(logits_CV.numel()),
    )  # fmt: skip
    if num_bad:
        raise IndexError(f"{num_bad} targets are outside the vocabulary of {vocab_size}")
    return lse_C, logp_C


def softmax_gradient_(
    logits_CV: Tensor,
    targets_C: Tensor,
    ignore: int,
    scale: float,
    lse_C: Tensor,
    row_grad_C: Tensor,
) -> Tensor:
    """Overwrite logits with the gradient of ``sum(row_grad * target log-probability)``."""
    library = load_library() if _is_native(logits_CV) else None
    if library is None:
        return _torch_gradient_(logits_CV, targets_C, ignore, scale, lse_C, row_grad_C)
    num_rows, vocab_size = logits_CV.shape
    library.functions.weft_softmax_gradient(
        logits_CV.data_ptr(), TYPE_CODES[logits_CV.dtype], targets_C.data_ptr(), ignore, scale,
        num_rows, vocab_size, lse_C.data_ptr(), row_grad_C.data_ptr(),
        num_threads(logits_CV.numel()),
    )  # fmt: skip
    return logits_CV


def _is_native(logits_CV: Tensor) -> bool:
    return is_plain(logits_CV) and logits_CV.is_contiguous() and logits_CV.numel() > 0


def _torch_stats(
    logits_CV: Tensor, targets_C: Tensor, ignore: int, scale: float | Tensor
) -> tuple[Tensor, Tensor]:
    wide_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    scale_C1 = scale.unsqueeze(-1) if isinstance(scale, Tensor) else scale
    highest_C1 = wide_CV.amax(-1, keepdim=True)
    # As in C, the largest logit is taken off before the rest is scaled: no digits are lost.
    shifted_CV = (wide_CV - highest_C1).mul_(scale_C1)
    log_total_C1 = shifted_CV.logsumexp(-1, keepdim=True)
    ignored_C = targets_C == ignore
    index_C1 = targets_C.masked_fill(ignored_C, 0).unsqueeze(-1)
    logp_C = (shifted_CV.gather(-1, index_C1) - log_total_C1).squeeze(-1)
    lse_C = (highest_C1 * scale_C1 + log_total_C1).squeeze(-1)
    return lse_C, logp_C.masked_fill(ignored_C, 0.0)


def _torch_gradient_(
    logits_CV: Tensor,
    targets_C: Tensor,
    ignore: int,
    scale: float,
    lse_C: Tensor,
    row_grad_C: Tensor,
) -> Tensor:
    wide_CV = logits_CV.to(lse_C.dtype) * scale
    factor_C1 = (row_grad_C * scale).unsqueeze(-1)
    grad_CV = wide_CV.sub_(lse_C.unsqueeze(-1)).exp_().mul_(-factor_C1)
    ignored_C = targets_C == ignore
    index_C1 = targets_C.masked_fill(ignored_C, 0).unsqueeze(-1)
    grad_CV.scatter_add_(-1, index_C1, factor_C1)
    grad_CV.masked_fill_(ignored_C.unsqueeze(-1), 0.0)
    return logits_CV.copy_(grad_CV)
