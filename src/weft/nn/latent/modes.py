"""Latent attention of one sequence, expanded and absorbed.

T queries, the last of S positions; N heads, H = P + R query-key head width (P without position,
R rotated), V value head width, C latent width, E = C + R, M = P + V.

With a latent ``c``, keys ``K c`` and values ``U c`` of a head: ``q . (K c) = (K^T q) . c`` and
``sum w (U c) = U (sum w c)``, so both modes compute the same numbers (DeepSeek-V2,
arXiv:2405.04434, section 2.1.2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops import ScoreRule, linear, packed_attention
from weft.ops.attention.rule import distances
from weft.ops.attention.softmax import softmax_attention
from weft.spec import MLASpec

# Scores of absorbed chunks held at once: 256 MiB of float32.
MAX_SCORES = 2**26


def expand(latent_SE: Tensor, up_NMC: Tensor, spec: MLASpec) -> tuple[Tensor, Tensor]:
    """Return every head's keys, [S, N, H], and values, [S, N, V]."""
    latent_SC, rope_SR = latent_SE.split((spec.kv_latent_dim, spec.rope_head_dim), dim=-1)
    kv_SNM = linear(latent_SC, up_NMC.flatten(0, 1)).unflatten(-1, up_NMC.shape[:2])
    nope_SNP, v_SNV = kv_SNM.split((spec.nope_head_dim, spec.value_head_dim), dim=-1)
    rope_SNR = rope_SR.unsqueeze(1).expand(-1, spec.num_heads, -1)
    return torch.cat((nope_SNP, rope_SNR), dim=-1), v_SNV


def absorb_queries(q_TNH: Tensor, up_NMC: Tensor, spec: MLASpec) -> Tensor:
    """Return the queries that meet latents instead of keys, [T, N, E]."""
    nope_TNP, rope_TNR = q_TNH.split((spec.nope_head_dim, spec.rope_head_dim), dim=-1)
    latent_TNC = torch.einsum("tnp,npc->tnc", nope_TNP, up_NMC[:, : spec.nope_head_dim])
    return torch.cat((latent_TNC, rope_TNR), dim=-1)


def absorb_values(mixed_TNC: Tensor, up_NMC: Tensor, spec: MLASpec) -> Tensor:
    """Return the values of mixed latents, [T, N, V]."""
    return torch.einsum("tnc,nvc->tnv", mixed_TNC, up_NMC[:, spec.nope_head_dim :])


def attend_expanded(
    q_TNH: Tensor, latent_SE: Tensor, up_NMC: Tensor, spec: MLASpec, mask_TS: Tensor | None = None
) -> Tensor:
    """Attend to keys and values made from the latents, [T, N, V]; no mask means causal."""
    k_SNH, v_SNV = expand(latent_SE, up_NMC, spec)
    if mask_TS is None:
        lengths, rule = (len(q_TNH),), ScoreRule(spec.softmax_scale)
        return packed_attention(q_TNH, k_SNH, v_SNV, lengths, rule, key_lengths=(len(k_SNH),))
    q, k, v = (tensor.transpose(0, 1).unsqueeze(0) for tensor in (q_TNH, k_SNH, v_SNV))
    mixed_1NTV = softmax_attention(q, k, v, scale=spec.softmax_scale, visible=mask_TS)
    return mixed_1NTV.squeeze(0).transpose(0, 1)


def attend_absorbed(
    q_TNH: Tensor, latent_SE: Tensor, up_NMC: Tensor, spec: MLASpec, mask_TS: Tensor | None = None
) -> Tensor:
    """Attend to the latents themselves, [T, N, V]; no mask means causal."""
    if mask_TS is None:
        mask_TS = distances(len(q_TNH), len(latent_SE), q_TNH.device) <= 0
    q_TNE = absorb_queries(q_TNH, up_NMC, spec)
    size = max(1, MAX_SCORES // (spec.num_heads * len(latent_SE)))
    mixed = [
        _mix_latents(q_tNE, latent_SE, mask_tS, spec)
        for q_tNE, mask_tS in zip(q_TNE.split(size), mask_TS.split(size), strict=True)
    ]
    return absorb_values(torch.cat(mixed), up_NMC, spec)


def _mix_latents(q_TNE: Tensor, latent_SE: Tensor, mask_TS: Tensor, spec: MLASpec) -> Tensor:
    """Return the latents weighted by each head's softmax, [T, N, C].

    Heads and queries are the rows of one product, for all of them share the latents; SDPA would
    copy the latents for every head.
    """
    shape = q_TNE.shape[:2]
    scores_TNS = (q_TNE.flatten(0, 1) @ latent_SE.T).unflatten(0, shape)
    wide = torch.promote_types(scores_TNS.dtype, torch.float32)
    scores_TNS = scores_TNS.to(wide) * spec.softmax_scale
    weights_TNS = scores_TNS.masked_fill(~mask_TS.unsqueeze(1), float("-inf")).softmax(-1)
    rows_RS = weights_TNS.to(q_TNE.dtype).flatten(0, 1)
    return (rows_RS @ latent_SE[:, : spec.kv_latent_dim]).unflatten(0, shape)
