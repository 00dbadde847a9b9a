"""Attention for sequences too long to attend to whole.

Shifted groups and segments with memory are ``packed_attention`` over other documents than the
sequences themselves; a window with global tokens is a mask.
T tokens, N query heads, K key-value heads, H head width, M remembered positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.core.errors import ConfigError
from weft.ops.attention.rule import ScoreRule, distances
from weft.ops.attention.softmax import softmax_attention
from weft.ops.functional import packed_attention


def shifted_attention(
    q_TNH: Tensor,
    k_TKH: Tensor,
    v_TKH: Tensor,
    lengths: tuple[int, ...],
    rule: ScoreRule,
    *,
    group_size: int,
) -> Tensor:
    """Attend within groups of tokens, shifted by half a group in half of the heads, [T, N, H].

    Shifted sparse attention, S2-Attn (Chen et al. 2023, LongLoRA, arXiv:2309.12307), with which a
    model is fine-tuned on long sequences at the cost of short ones. The paper rolls the sequence,
    so that its two ends share a group; here they are two short groups, and no token sees across.
    A sequence no longer than a group is attended to whole.

    Raises:
        ConfigError: an odd group, or a number of key-value heads that has no half.
    """
    num_kv_heads = k_TKH.shape[1]
    if group_size < 2 or group_size % 2 or num_kv_heads % 2:
        raise ConfigError(
            f"shifted attention halves its groups of {group_size} and its {num_kv_heads} "
            f"key-value heads; both must be even"
        )
    halves = zip(*(t.chunk(2, dim=1) for t in (q_TNH, k_TKH, v_TKH)), strict=True)
    outputs = []
    for shift, (q, k, v) in zip((0, group_size // 2), halves, strict=True):
        groups = tuple(size for length in lengths for size in _groups(length, group_size, shift))
        outputs.append(packed_attention(q, k, v, groups, rule))
    return torch.cat(outputs, dim=1)


def attend_with_memory(
    q_TNH: Tensor,
    k_TKH: Tensor,
    v_TKH: Tensor,
    memory: tuple[Tensor, Tensor] | None,
    rule: ScoreRule,
    *,
    memory_size: int,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Attend from a segment to itself and to what is remembered of the segments before it.

    Segment recurrence (Dai et al. 2019, Transformer-XL, arXiv:1901.02860): ``memory`` holds keys
    and values [M, K, H] of earlier segments, which get no gradient. With a window of at most
    ``memory_size + 1`` the segments together give what one pass over the whole sequence gives.

    Returns:
        The attended values, [T, N, H], and the memory for the next segment.
    """
    num_queries = q_TNH.shape[0]
    if memory is not None:
        k_TKH = torch.cat([memory[0].detach(), k_TKH])
        v_TKH = torch.cat([memory[1].detach(), v_TKH])
    num_keys = k_TKH.shape[0]
    out_TNH = packed_attention(q_TNH, k_TKH, v_TKH, (num_queries,), rule, key_lengths=(num_keys,))
    first = max(num_keys - memory_size, 0)
    return out_TNH, (k_TKH[first:].detach(), v_TKH[first:].detach())


def global_attention(
    q_TNH: Tensor,
    k_TKH: Tensor,
    v_TKH: Tensor,
    is_global_T: Tensor,
    lengths: tuple[int, ...],
    rule: ScoreRule,
) -> Tensor:
    """Attend within the rule's window, but to and from global tokens at any distance, [T, N, H].

    Beltagy et al. 2020, Longformer, arXiv:2004.05150, which also gives global tokens projections of
    their own. A causal rule still hides later positions, global or not. This is the definition: all
    scores of a sequence are in memory.

    Raises:
        ConfigError: a rule with sinks or biases.
    """
    if rule.sinks_N is not None or rule.slopes_N is not None or rule.bias_NR is not None:
        raise ConfigError("attention with global tokens knows no sinks, slopes or trained biases")
    outputs = []
    documents = zip(*(t.split(lengths) for t in (q_TNH, k_TKH, v_TKH, is_global_T)), strict=True)
    for q, k, v, is_global in documents:
        distance_TT = distances(len(q), len(q), q.device)
        seen_TT = rule.visible(distance_TT) | is_global | is_global[:, None]
        if rule.causal:
            seen_TT &= distance_TT <= 0
        rows = (t.transpose(0, 1)[None] for t in (q, k, v))
        mixed = softmax_attention(*rows, scale=rule.scale, softcap=rule.softcap, visible=seen_TT)
        outputs.append(mixed[0].transpose(0, 1))
    return torch.cat(outputs)


def _groups(length: int, group_size: int, shift: int) -> list[int]:
    """Return the sizes of the groups of one sequence, a shift first."""
    if length <= group_size:
        return [length]
    rest = length - shift
    sizes = [shift] if shift else []
    sizes += [group_size] * (rest // group_size)
    return sizes + ([rest % group_size] if rest % group_size else [])
