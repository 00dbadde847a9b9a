"""Texts to vectors. T tokens, B texts, D width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from weft.core.errors import ConfigError, RequestError
from weft.data.pack import length_groups
from weft.models.encoder import Encoder
from weft.models.pooling import pool
from weft.nn.context import StepContext
from weft.spec import PoolingSpec
from weft.text.tokenizer import Tokenizer


class TextEmbedder:
    """A tokenizer, an encoder and a pooling as one function from texts to vectors.

    Args:
        model: The encoder; used as it is, on its device.
        tokenizer: Its tokenizer; what it puts around a text ([CLS], [SEP]) is added.
        pooling: How tokens' vectors become one.
        max_tokens: Longer texts are cut to this, the added tokens included; none means the
            model's context.
        short_dims: Widths the model was trained to be cut to (Matryoshka representations,
            Kusupati et al. 2022, arXiv:2205.13147).

    Raises:
        ConfigError: ``max_tokens`` is more than the model can read, or less than 3.
    """

    def __init__(
        self,
        model: Encoder,
        tokenizer: Tokenizer,
        pooling: PoolingSpec | None = None,
        *,
        max_tokens: int | None = None,
        short_dims: Sequence[int] = (),
    ) -> None:
        tokenizer.check_model(model.spec.vocab_size)
        self.model, self.tokenizer = model, tokenizer
        self.pooling = pooling or PoolingSpec()
        self.short_dims = tuple(short_dims)
        self.max_tokens = max_tokens or model.spec.context_length
        if not 3 <= self.max_tokens <= model.spec.context_length:
            raise ConfigError(
                f"max_tokens is {self.max_tokens}; this encoder reads 3 to "
                f"{model.spec.context_length} tokens"
            )

    @property
    def dim(self) -> int:
        """Width of the vectors (D)."""
        return self.model.spec.dim

    def embed(self, texts: Sequence[str], *, tokens_per_batch: int = 8192) -> Tensor:
        """Return one vector per text, [B, D], float32, in the order of the texts.

        Texts are computed in the order of their lengths, about ``tokens_per_batch`` tokens at a
        time; a text's vector does not depend on what it is batched with.

        Raises:
            RequestError: a text is not valid Unicode, or has no token.
        """
        tokens = [self.cut(self.encode(text), self.max_tokens) for text in texts]
        return self.embed_tokens(tokens, tokens_per_batch=tokens_per_batch)

    @torch.inference_mode()
    def embed_tokens(
        self, tokens: Sequence[Sequence[int]], *, tokens_per_batch: int = 8192
    ) -> Tensor:
        """Return one vector per list of token ids, each 1 to ``max_tokens`` long, [B, D]."""
        vectors_BD = torch.zeros(len(tokens), self.dim, device=self.model.device)
        for rows in length_groups([len(ids) for ids in tokens], tokens_per_batch):
            lengths = tuple(len(tokens[row]) for row in rows)
            flat_T = torch.tensor([id for row in rows for id in tokens[row]])
            context = StepContext.packed(lengths, device=self.model.device)
            hidden_TD = self.model(flat_T.to(self.model.device), context)
            vectors_BD[rows] = pool(hidden_TD, lengths, self.pooling)
        return vectors_BD

    def encode(self, text: str) -> list[int]:
        """Return all ids of a text and of what is put around it.

        Raises:
            RequestError: the text is not valid Unicode, or has no token.
        """
        tokens = self.tokenizer.encode(text, add_special_tokens=True)
        if not tokens:
            raise RequestError("a text without tokens has no vector", fix="leave out empty texts")
        return tokens

    def cut(self, tokens: list[int], max_tokens: int) -> list[int]:
        """Cut the ids of a text at its end, but not the tokens put around it."""
        if len(tokens) <= max_tokens:
            return tokens
        around = self.tokenizer.encode("", add_special_tokens=True)
        after = len(around) - 1 if around else 0
        kept = tokens[: max_tokens - after]
        return kept + tokens[len(tokens) - after :] if after > 0 else kept
