"""The bidirectional encoder. T tokens, D model width, V vocabulary, B texts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.core.errors import UnsupportedError
from weft.models.decoder import Block
from weft.models.init import init_weights
from weft.nn.context import StepContext
from weft.nn.embedding import Embedding
from weft.nn.linear import Linear
from weft.nn.norm import build_norm
from weft.nn.positions import build_positions
from weft.nn.relative import build_relative_bias
from weft.ops.activation.functions import ACTIVATIONS
from weft.spec import EncoderSpec


class Encoder(nn.Module):
    """Reads texts laid end to end; each token sees all of its own text.

    >>> from weft.spec import AttentionSpec, LayerSpec, MLPSpec
    >>> layer = LayerSpec(AttentionSpec(2, 2, 16, causal=False), MLPSpec(64))
    >>> model = Encoder(EncoderSpec("bert", vocab_size=100, dim=32, layers=(layer,) * 2))
    >>> tuple(model(torch.tensor([1, 2, 3]), StepContext.packed([1, 2])).shape)
    (3, 32)
    """

    def __init__(
        self,
        spec: EncoderSpec,
        *,
        own_embedding: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        """Build the modules; weights are initialised from ``seed`` unless on the meta device.

        Without ``own_embedding`` every call must bring the table.
        """
        super().__init__()
        self.spec = spec
        where = {"device": device, "dtype": dtype}
        self.embed = Embedding(spec.vocab_size, spec.dim, **where) if own_embedding else None
        self.token_types = (
            Embedding(spec.num_token_types, spec.dim, **where) if spec.num_token_types else None
        )
        self.positions = build_positions(spec.dim, spec.positions, **where)
        self.embed_norm = build_norm(spec.dim, spec.norm, **where) if spec.embedding_norm else None
        self.relative_bias = build_relative_bias(spec.layers, **where)
        self.layers = nn.ModuleList(
            Block(spec.dim, layer, layer=index, norm=spec.norm, **where)
            for index, layer in enumerate(spec.layers)
        )
        self.norm = build_norm(spec.dim, spec.norm, **where) if spec.final_norm else None
        self.pooler = Linear(spec.dim, spec.dim, **where) if spec.pooler else None
        self.masked_lm = None if spec.masked_lm is None else MaskedLMHead(spec, **where)
        if next(self.parameters()).device.type != "meta":
            init_weights(self, spec, seed=seed)

    def forward(
        self,
        tokens_T: Tensor,
        ctx: StepContext,
        *,
        types_T: Tensor | None = None,
        embedding_VD: Tensor | None = None,
    ) -> Tensor:
        """Return the hidden state of every token, [T, D].

        Args:
            tokens_T: Token ids of all texts.
            ctx: A packed context of their lengths.
            types_T: Segment of each token; none means 0. Unused where there is no such table.
            embedding_VD: The embedding, where the encoder has none of its own.
        """
        x_TD = self.embed_tokens(tokens_T, ctx, types_T, embedding_VD)
        if self.relative_bias is not None:
            ctx.relative_bias_NR = self.relative_bias()
        for layer in self.layers:
            x_TD = layer(x_TD, ctx)
        return x_TD if self.norm is None else self.norm(x_TD)

    def embed_tokens(
        self,
        tokens_T: Tensor,
        ctx: StepContext,
        types_T: Tensor | None = None,
        embedding_VD: Tensor | None = None,
    ) -> Tensor:
        """Return the residual stream before the first block, [T, D]."""
        x_TD = F.embedding(tokens_T, self._table(embedding_VD))
        if self.spec.embedding_scale is not None:
            x_TD = x_TD * self.spec.embedding_scale
        if self.token_types is not None:
            x_TD = x_TD + self.token_types(
                torch.zeros_like(tokens_T) if types_T is None else types_T
            )
        if self.positions is not None:
            x_TD = x_TD + self.positions(ctx.positions_T).to(x_TD.dtype)
        return x_TD if self.embed_norm is None else self.embed_norm(x_TD)

    def pool_first(self, hidden_TD: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """Return BERT's vector of each text, tanh of a map of its first token's, [B, D].

        Raises:
            UnsupportedError: the model has no such map.
        """
        if self.pooler is None:
            raise UnsupportedError(
                "this encoder has no pooler", fix="use weft.models.pooling.pool instead"
            )
        starts_B = torch.tensor((0, *lengths[:-1]), device=hidden_TD.device).cumsum(0)
        return torch.tanh(self.pooler(hidden_TD[starts_B]))

    def masked_lm_logits(self, hidden_TD: Tensor) -> Tensor:
        """Return the scores of what each token was before it was masked, [T, V], float32.

        Raises:
            UnsupportedError: the model has no such head.
        """
        if self.masked_lm is None:
            raise UnsupportedError(
                "this encoder has no head for masked tokens",
                fix="load a checkpoint of BertForMaskedLM",
            )
        return self.masked_lm(hidden_TD, self._table(None)).float()

    def _table(self, embedding_VD: Tensor | None) -> Tensor:
        if embedding_VD is not None:
            return embedding_VD
        assert self.embed is not None, "an encoder without embedding needs one with every call"
        return self.embed.weight

    @property
    def num_parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class MaskedLMHead(nn.Module):
    """Map, activation, norm, then the embedding as output projection (BERT, arXiv:1810.04805)."""

    def __init__(
        self,
        spec: EncoderSpec,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        assert spec.masked_lm is not None
        where = {"device": device, "dtype": dtype}
        self.activation = ACTIVATIONS[spec.masked_lm]
        self.dense = Linear(spec.dim, spec.dim, **where)
        self.norm = build_norm(spec.dim, spec.norm, **where)
        self.bias = nn.Parameter(torch.zeros(spec.vocab_size, **where))

    def forward(self, hidden_TD: Tensor, embedding_VD: Tensor) -> Tensor:
        """Return the scores of every token of the vocabulary, [T, V]."""
        return F.linear(self.norm(self.activation(self.dense(hidden_TD))), embedding_VD, self.bias)
