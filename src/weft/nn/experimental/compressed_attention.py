"""Attention to a window of tokens and to compressed entries of the past. Experimental.

Legend: T tokens of one document, D model width, N heads, H head width (R of it rotated, at its
end), Q query latent width, W compressed entries, I index heads, J index head width, G groups of
the output projection.

DeepSeek-V4 (2026): an entry is the average of ``rate`` tokens' vectors, weighted by a softmax over
the tokens for every dimension alone. *Heavily compressed* (HCA): a large rate, and all entries are
read. *Compressed sparse* (CSA): a small rate, each entry also looks back at the window before its
own, and a lightning indexer picks the entries each query reads. One key head, which is the value.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.latent.selection import index_scores, top_positions
from weft.nn.latent.tokens import IndexTokens
from weft.nn.linear import Linear
from weft.nn.norm import RMSNorm
from weft.nn.rotary import rotary_tables
from weft.ops import apply_rotary
from weft.ops.attention.rule import distances
from weft.spec import IndexerSpec, RotarySpec


@dataclass(frozen=True)
class CompressedAttentionSpec:
    """Attributes of compressed attention.

    Attributes:
        num_heads: Query heads (N).
        head_dim: Width of a head (H).
        rope_head_dim: How many of its last dimensions rotate (R).
        query_latent_dim: Q.
        window: Tokens a query sees uncompressed, itself included.
        rate: Tokens per entry.
        num_output_groups: Groups of heads that are projected alone first (G).
        output_latent_dim: Width of each group's projection.
        overlap: An entry also averages over the window before (CSA).
        indexer: Which entries a query reads; none reads all.
        rotary: Positions.
        eps: Of all norms.
    """

    num_heads: int
    head_dim: int
    rope_head_dim: int
    query_latent_dim: int
    window: int
    rate: int
    num_output_groups: int
    output_latent_dim: int
    overlap: bool = False
    indexer: IndexerSpec | None = None
    rotary: RotarySpec = field(default_factory=lambda: RotarySpec(layout="interleaved"))
    eps: float = 1e-6


class Compressor(nn.Module):
    """Entries of ``rate`` tokens each; a tail that fills no window gives none."""

    def __init__(self, dim: int, width: int, spec: CompressedAttentionSpec) -> None:
        super().__init__()
        self.spec = spec
        self.width = width
        num_series = 2 if spec.overlap else 1
        self.kv = Linear(dim, num_series * width, bias=False)
        self.gate = Linear(dim, num_series * width, bias=False)
        self.position_bias = nn.Parameter(torch.zeros(spec.rate, num_series * width))
        self.norm = RMSNorm(width, spec.eps, float32_weight=True)

    def forward(self, x_TD: Tensor) -> Tensor:
        """Return the entries, [W, width], rotated to the position each window starts at."""
        rate = self.spec.rate
        x_WrD = x_TD[: len(x_TD) // rate * rate].unflatten(0, (-1, rate))
        kv_WrM, gate_WrM = self.kv(x_WrD), self.gate(x_WrD) + self.position_bias
        if self.spec.overlap:
            kv_WrM = self._join(kv_WrM, 0.0)
            gate_WrM = self._join(gate_WrM, float("-inf"))
        weights_WrH = gate_WrM.float().softmax(1).to(kv_WrM.dtype)
        entries_WH = self.norm((kv_WrM * weights_WrH).sum(1))
        positions_W = torch.arange(len(entries_WH), device=x_TD.device) * rate
        return rotate_end(entries_WH.unsqueeze(1), positions_W, self.spec).squeeze(1)

    def _join(self, series_WrM: Tensor, fill: float) -> Tensor:
        """Put the first series of the window before ahead of the second of this one."""
        before_WrH, own_WrH = series_WrM.split(self.width, dim=-1)
        before_WrH = F.pad(before_WrH, (0, 0, 0, 0, 1, 0), value=fill)[: len(own_WrH)]
        return torch.cat((before_WrH, own_WrH), dim=1)


class CompressedIndexer(nn.Module):
    """A lightning indexer whose keys are compressed like the entries it picks."""

    def __init__(self, dim: int, spec: CompressedAttentionSpec) -> None:
        super().__init__()
        assert spec.indexer is not None
        self.spec = spec
        self.indexer = spec.indexer
        num_heads, width = spec.indexer.num_heads, spec.indexer.head_dim
        self.keys = Compressor(dim, width, spec)
        self.query = Linear(spec.query_latent_dim, num_heads * width, bias=False)
        self.head_weights = Linear(dim, num_heads, bias=False)

    @torch.no_grad()
    def forward(
        self, x_TD: Tensor, query_TQ: Tensor, positions_T: Tensor, visible_TW: Tensor
    ) -> Tensor:
        """Return which visible entries each query reads, [T, W], bool."""
        if visible_TW.shape[1] == 0:
            return visible_TW
        num_heads, width = self.indexer.num_heads, self.indexer.head_dim
        keys_WJ = self.keys(x_TD)
        q_TIJ = self.query(query_TQ).unflatten(-1, (num_heads, width))
        weights_TI = self.head_weights(x_TD).float() * (num_heads * width) ** -0.5
        index = IndexTokens(rotate_end(q_TIJ, positions_T, self.spec), keys_WJ, weights_TI)
        return top_positions(index_scores(index, keys_WJ), visible_TW, self.indexer.top_k)


class CompressedAttention(nn.Module):
    """HCA, and CSA where the specification has overlap and an indexer. Packed contexts only."""

    def __init__(self, dim: int, spec: CompressedAttentionSpec) -> None:
        super().__init__()
        self.spec = spec
        heads_dim, groups = spec.num_heads * spec.head_dim, spec.num_output_groups
        self.query_down = Linear(dim, spec.query_latent_dim, bias=False)
        self.query_norm = RMSNorm(spec.query_latent_dim, spec.eps, float32_weight=True)
        self.query = Linear(spec.query_latent_dim, heads_dim, bias=False)
        self.kv = Linear(dim, spec.head_dim, bias=False)
        self.kv_norm = RMSNorm(spec.head_dim, spec.eps, float32_weight=True)
        self.compressor = Compressor(dim, spec.head_dim, spec)
        self.indexer = None if spec.indexer is None else CompressedIndexer(dim, spec)
        self.sinks = nn.Parameter(torch.zeros(spec.num_heads))
        self.group = nn.Parameter(torch.empty(groups, spec.output_latent_dim, heads_dim // groups))
        self.out = Linear(groups * spec.output_latent_dim, dim, bias=False)
        nn.init.normal_(self.group, std=(heads_dim // groups) ** -0.5)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Mix each document of [T, D] alone."""
        return torch.cat([self._attend(document) for document in x_TD.split(ctx.lengths)])

    def _attend(self, x_TD: Tensor) -> Tensor:
        spec = self.spec
        positions_T = torch.arange(len(x_TD), device=x_TD.device)
        query_TQ = self.query_norm(self.query_down(x_TD))
        q_TNH = self.query(query_TQ).unflatten(-1, (spec.num_heads, spec.head_dim))
        q_TNH = F.rms_norm(q_TNH, (spec.head_dim,), eps=spec.eps)
        q_TNH = rotate_end(q_TNH, positions_T, spec)
        kv_T1H = rotate_end(self.kv_norm(self.kv(x_TD)).unsqueeze(1), positions_T, spec)
        entries_WH = self.compressor(x_TD)
        visible_TW = closed_entries(len(x_TD), spec.rate, x_TD.device)
        if self.indexer is not None:
            visible_TW = self.indexer(x_TD, query_TQ, positions_T, visible_TW)
        distance_TT = distances(len(x_TD), len(x_TD), x_TD.device)
        mask_TS = torch.cat(((distance_TT <= 0) & (distance_TT > -spec.window), visible_TW), dim=1)
        mixed_TNH = self._softmax(q_TNH, torch.cat((kv_T1H.squeeze(1), entries_WH)), mask_TS)
        # Keys are the values too, so what is read is turned; turn it back to the query's position.
        mixed_TNH = rotate_end(mixed_TNH, -positions_T, spec)
        groups_TGE = mixed_TNH.flatten(1).unflatten(-1, (spec.num_output_groups, -1))
        return self.out(torch.einsum("tge,gle->tgl", groups_TGE, self.group).flatten(1))

    def _softmax(self, q_TNH: Tensor, kv_SH: Tensor, mask_TS: Tensor) -> Tensor:
        scores_TNS = (q_TNH @ kv_SH.T).float() * self.spec.head_dim**-0.5
        scores_TNS = scores_TNS.masked_fill(~mask_TS.unsqueeze(1), float("-inf"))
        sinks_TN1 = self.sinks.float().view(1, -1, 1).expand(len(q_TNH), -1, -1)
        weights = torch.cat((scores_TNS, sinks_TN1), dim=-1).softmax(-1)[..., :-1]
        return weights.to(kv_SH.dtype) @ kv_SH


def closed_entries(num_tokens: int, rate: int, device: torch.device) -> Tensor:
    """Return which entries end at or before each token, [T, W], bool.

    >>> closed_entries(4, 2, torch.device("cpu")).int().tolist()
    [[0, 0], [1, 0], [1, 0], [1, 1]]
    """
    ends_W = (torch.arange(num_tokens // rate, device=device) + 1) * rate
    return ends_W <= torch.arange(1, num_tokens + 1, device=device).unsqueeze(1)


def rotate_end(x_TNH: Tensor, positions_T: Tensor, spec: CompressedAttentionSpec) -> Tensor:
    """Turn the last R dimensions of every head."""
    rest, rope = x_TNH.split((x_TNH.shape[-1] - spec.rope_head_dim, spec.rope_head_dim), dim=-1)
    tables = rotary_tables(spec.rotary, spec.rope_head_dim, positions_T)
    return torch.cat((rest, apply_rotary(rope, *tables, spec.rotary.layout)), dim=-1)
