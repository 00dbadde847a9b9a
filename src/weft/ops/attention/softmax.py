"""Batched softmax attention with everything a ``ScoreRule`` can ask for, in torch.

B rows, N query heads, K key-value heads, T queries, S keys, H key width, V value width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from weft.ops.dispatch import needs_grad


def softmax_attention(
    q_BNTH: Tensor,
    k_BKSH: Tensor,
    v_BKSV: Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    visible: Tensor | None = None,
    bias: Tensor | None = None,
    sinks_N11: Tensor | None = None,
) -> Tensor:
    """Attend from every query to the keys it may see, [B, N, T, V].

    ``visible`` (bool) and ``bias`` broadcast to [B, N, T, S], ``sinks_N11`` to [N, T, 1]. A sink
    is one more key, of zeros, whose bias is the sink and whose value is zero. Soft-capping and
    gradients of biases and sinks, which the fused kernels lack, need all scores in memory and
    take them in float32.
    """
    mask = _mask(q_BNTH, k_BKSH.shape[2], visible, bias, sinks_N11)
    if sinks_N11 is not None:
        k_BKSH, v_BKSV = F.pad(k_BKSH, (0, 0, 0, 1)), F.pad(v_BKSV, (0, 0, 0, 1))
    if softcap is not None or (mask is not None and needs_grad(mask)):
        return _dense(q_BNTH, k_BKSH, v_BKSV, mask, scale, softcap)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(q_BNTH.dtype)
    return F.scaled_dot_product_attention(
        q_BNTH, k_BKSH, v_BKSV, attn_mask=mask, scale=scale,
        enable_gqa=q_BNTH.shape[1] != k_BKSH.shape[1],
    )  # fmt: skip


def _mask(
    q_BNTH: Tensor,
    num_keys: int,
    visible: Tensor | None,
    bias: Tensor | None,
    sinks_N11: Tensor | None,
) -> Tensor | None:
    """Return the one mask that carries all three: bool where nothing is added."""
    if bias is None and sinks_N11 is None:
        return visible
    if bias is None:
        bias = q_BNTH.new_zeros(1, 1, 1, num_keys)
    # Gradients of biases are sums over all pairs: they are taken in float32.
    mask = bias.to(torch.promote_types(q_BNTH.dtype, torch.float32))
    if visible is not None:
        mask = torch.where(visible, mask, float("-inf"))
    if sinks_N11 is None:
        return mask
    shape = torch.broadcast_shapes(mask.shape, (1, *q_BNTH.shape[1:3], 1))
    sinks = sinks_N11.to(mask.dtype).expand(*shape[:-1], 1)
    return torch.cat([mask.expand(shape), sinks], dim=-1)


def _dense(
    q_BNTH: Tensor,
    k_BKSH: Tensor,
    v_BKSV: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float | None,
) -> Tensor:
    wide = torch.promote_types(q_BNTH.dtype, torch.float32)
    group = q_BNTH.shape[1] // k_BKSH.shape[1]
    k_BNSH, v_BNSV = (t.to(wide).repeat_interleave(group, 1) for t in (k_BKSH, v_BKSV))
    scores = q_BNTH.to(wide) @ k_BNSH.transpose(2, 3) * scale
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        scores = scores + mask
    return (scores.softmax(-1) @ v_BNSV).to(q_BNTH.dtype)
