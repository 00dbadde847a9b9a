"""An encoder and a decoder that attends to it.

S source tokens, T target tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from weft.models.decoder import Decoder
from weft.models.encoder import Encoder
from weft.nn.context import StepContext
from weft.nn.memory import Memory
from weft.spec import EncoderDecoderSpec


class EncoderDecoder(nn.Module):
    """Reads a source, writes a target (Vaswani et al. 2017, arXiv:1706.03762).

    The decoder is a ``Decoder`` whose layers have cross attention: caches, heads and searches
    work on it as on any other. What it reads comes in the context, as a ``Memory``.
    """

    def __init__(
        self,
        spec: EncoderDecoderSpec,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        """Build the modules; weights are initialised from ``seed`` unless on the meta device."""
        super().__init__()
        self.spec = spec
        where = {"device": device, "dtype": dtype}
        own = not spec.shared_embedding
        self.encoder = Encoder(spec.encoder, own_embedding=own, seed=seed + 1, **where)
        self.decoder = Decoder(spec.decoder, seed=seed, **where)

    def encode(self, source_S: Tensor, lengths: Sequence[int]) -> Memory:
        """Read sources laid end to end."""
        shared = self.spec.shared_embedding
        hidden_SD = self.encoder(
            source_S,
            StepContext.packed(lengths, device=source_S.device),
            embedding_VD=self.decoder.embed.weight if shared else None,
        )
        return Memory(hidden_SD, tuple(lengths))

    def decode(self, target_T: Tensor, ctx: StepContext) -> Tensor:
        """Return what the head sees of each target token, [T, D]; ``ctx`` brings the memory."""
        hidden_TD = self.decoder(target_T, ctx)
        scale = self.spec.output_scale
        return hidden_TD if scale is None else hidden_TD * scale

    def forward(
        self,
        source_S: Tensor,
        source_lengths: Sequence[int],
        target_T: Tensor,
        target_lengths: Sequence[int],
    ) -> Tensor:
        """Return what the head sees of each target token given all before it, [T, D].

        Targets begin with ``spec.start_id`` (teacher forcing).
        """
        memory = self.encode(source_S, source_lengths)
        ctx = StepContext.packed(target_lengths, device=target_T.device, memory=memory)
        return self.decode(target_T, ctx)

    @property
    def head_weight(self) -> Tensor:
        """The output projection, [V, D]."""
        return self.decoder.head_weight

    @property
    def num_parameters(self) -> int:
        """How many numbers are learnt; shared ones count once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder.dtype
