"""The decoder. T tokens, D model width, V vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.models.init import init_weights
from weft.nn.attention import Attention
from weft.nn.context import StepContext
from weft.nn.mlp import MLP
from weft.nn.norm import RMSNorm
from weft.spec import LayerSpec, ModelSpec


class Block(nn.Module):
    """One pre-norm residual block: mixer, then feed-forward."""

    def __init__(
        self,
        dim: int,
        spec: LayerSpec,
        *,
        layer: int,
        norm_eps: float,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        self.mixer_norm = RMSNorm(dim, norm_eps, **where)
        self.mixer = Attention(dim, spec.mixer, layer=layer, norm_eps=norm_eps, **where)
        self.ffn_norm = RMSNorm(dim, norm_eps, **where)
        self.ffn = MLP(dim, spec.ffn, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Return the residual stream after this block, [T, D]."""
        x_TD = x_TD + self.mixer(self.mixer_norm(x_TD), ctx)
        return x_TD + self.ffn(self.ffn_norm(x_TD))


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
        self.embed = nn.Embedding(spec.vocab_size, spec.dim, **where)
        self.layers = nn.ModuleList(
            Block(spec.dim, layer, layer=index, norm_eps=spec.norm.eps, **where)
            for index, layer in enumerate(spec.layers)
        )
        self.norm = RMSNorm(spec.dim, spec.norm.eps, **where)
        self.head = (
            None if spec.tie_embeddings else nn.Linear(spec.dim, spec.vocab_size, False, **where)
        )
        if self.embed.weight.device.type != "meta":
            init_weights(self, spec, seed=seed)

    def forward(self, tokens_T: Tensor, ctx: StepContext) -> Tensor:
        """Return the normalised hidden state of every token, [T, D]."""
        x_TD = self.embed(tokens_T)
        for layer in self.layers:
            x_TD = layer(x_TD, ctx)
        return self.norm(x_TD)

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
