"""The decoder. T tokens, D model width, V vocabulary."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from weft.models.init import init_weights
from weft.models.mtp import MTPModule
from weft.nn.build import build_ffn, build_mixer
from weft.nn.context import StepContext
from weft.nn.cross_attention import CrossAttention
from weft.nn.embedding import Embedding
from weft.nn.norm import build_norm
from weft.nn.positions import build_positions
from weft.nn.relative import build_relative_bias
from weft.ops import linear
from weft.spec import LayerSpec, ModelSpec, NormSpec


class Block(nn.Module):
    """One residual block: mixer, attention to a memory, feed-forward part; norms as specified."""

    def __init__(
        self,
        dim: int,
        spec: LayerSpec,
        *,
        layer: int,
        norm: NormSpec,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        self.norms = spec.norms
        self.mixer = build_mixer(dim, spec.mixer, layer=layer, norm=norm, **where)
        self.mixer_norm = build_norm(dim, norm, **where)
        if spec.norms == "sandwich":
            self.mixer_output_norm = build_norm(dim, norm, **where)
        self.cross = None
        if spec.cross is not None:
            self.cross = CrossAttention(dim, spec.cross, layer=layer, **where)
            self.cross_norm = build_norm(dim, norm, **where)
            if spec.norms == "sandwich":
                self.cross_output_norm = build_norm(dim, norm, **where)
        self.ffn = None
        if spec.ffn is not None:
            self.ffn = build_ffn(dim, spec.ffn, layer=layer, **where)
            self.ffn_norm = build_norm(dim, norm, **where)
            if spec.norms == "sandwich":
                self.ffn_output_norm = build_norm(dim, norm, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Return the residual stream after this block, [T, D]."""
        x_TD = self._branch(x_TD, ctx, "mixer")
        if self.cross is not None:
            x_TD = self._branch(x_TD, ctx, "cross")
        return x_TD if self.ffn is None else self._branch(x_TD, ctx, "ffn")

    def _branch(
        self, x_TD: Tensor, ctx: StepContext, part: Literal["mixer", "cross", "ffn"]
    ) -> Tensor:
        function, norm = getattr(self, part), getattr(self, f"{part}_norm")
        if self.norms == "pre":
            return x_TD + function(norm(x_TD), ctx)
        if self.norms == "output":
            return x_TD + norm(function(x_TD, ctx))
        if self.norms == "post":
            return norm(x_TD + function(x_TD, ctx))
        return x_TD + getattr(self, f"{part}_output_norm")(function(norm(x_TD), ctx))


class Decoder(nn.Module):
    """A decoder-only language model over flat tokens.

    >>> from weft.spec import ModelShape
    >>> model = Decoder(ModelShape(dim=32, num_layers=2).build(vocab_size=100))
    >>> hidden_TD = model(torch.tensor([1, 2, 3]), StepContext.packed([3]))
    >>> tuple(hidden_TD.shape)
    (3, 32)
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        """Build the modules; weights are initialised from ``seed`` unless on the meta device."""
        super().__init__()
        self.spec = spec
        where = {"device": device, "dtype": dtype}
        self.embed = Embedding(spec.vocab_size, spec.dim, **where)
        self.positions = build_positions(spec.dim, spec.positions, **where)
        self.embed_norm = build_norm(spec.dim, spec.norm, **where) if spec.embedding_norm else None
        self.relative_bias = build_relative_bias(spec.layers, **where)
        self.layers = nn.ModuleList(
            Block(spec.dim, layer, layer=index, norm=spec.norm, **where)
            for index, layer in enumerate(spec.layers)
        )
        self.norm = build_norm(spec.dim, spec.norm, **where) if spec.final_norm else None
        self.head = (
            None if spec.tie_embeddings else nn.Linear(spec.dim, spec.vocab_size, False, **where)
        )
        self.mtp = nn.ModuleList(
            MTPModule(
                spec.dim,
                Block(spec.dim, spec.layers[-1], layer=index, norm=spec.norm, **where),
                spec.norm,
                **where,
            )
            for index in range(spec.num_layers, spec.num_layers + spec.num_mtp_layers)
        )
        if self.embed.weight.device.type != "meta":
            init_weights(self, spec, seed=seed)

    def forward(self, tokens_T: Tensor, ctx: StepContext) -> Tensor:
        """Return the normalised hidden state of every token, [T, D]."""
        ctx.tokens_T = tokens_T
        x_TD = self.embed_tokens(tokens_T, ctx)
        if self.relative_bias is not None:
            ctx.relative_bias_NR = self.relative_bias()
        for layer in self.layers:
            x_TD = layer(x_TD, ctx)
        return x_TD if self.norm is None else self.norm(x_TD)

    def embed_tokens(self, tokens_T: Tensor, ctx: StepContext) -> Tensor:
        """Return the residual stream before the first block, [T, D]."""
        x_TD = self.embed(tokens_T)
        if self.spec.embedding_scale is not None:
            # Rounded to the model's type first, as Gemma does; it is visible in bf16.
            x_TD = x_TD * torch.tensor(self.spec.embedding_scale, dtype=x_TD.dtype)
        if self.positions is not None:
            x_TD = x_TD + self.positions(ctx.positions_T).to(x_TD.dtype)
        return x_TD if self.embed_norm is None else self.embed_norm(x_TD)

    def unembed(self, hidden_TD: Tensor) -> Tensor:
        """Return the scores of every next token as the model's type has them, [T, V]."""
        return linear(hidden_TD, self.head_weight.to(hidden_TD.dtype))

    @property
    def head_weight(self) -> Tensor:
        """The output projection, [V, D]; the embedding itself when they are tied."""
        return self.embed.weight if self.head is None else self.head.weight

    @property
    def num_parameters(self) -> int:
        """How many numbers are learnt; a tied embedding counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        return self.embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embed.weight.dtype
