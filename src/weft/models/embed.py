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
    ) -> None:
        tokenizer.check_model(model.spec.vocab_size)
        self.model, self.tokenizer = model, tokenizer
        self.pooling = pooling or PoolingSpec()
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

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], *, tokens_per_batch: int = 8192) -> Tensor:
        """Return one vector per text, [B, D], float32, in the order of the texts.

        Texts are computed in the order of their lengths, about ``tokens_per_batch`` tokens at a
        time; a text's vector does not depend on what it is batched with.

        Raises:
            RequestError: a text is not valid Unicode, or has no token.
        """
        tokens = [self._tokens(text) for text in texts]
        vectors_BD = torch.zeros(len(texts), self.dim, device=self.model.device)
        for rows in length_groups([len(ids) for ids in tokens], tokens_per_batch):
            lengths = tuple(len(tokens[row]) for row in rows)
            flat_T = torch.tensor([id for row in rows for id in tokens[row]])
            context = StepContext.packed(lengths, device=self.model.device)
            hidden_TD = self.model(flat_T.to(self.model.device), context)
            vectors_BD[rows] = pool(hidden_TD, lengths, self.pooling)
        return vectors_BD

    def _tokens(self, text: str) -> list[int]:
        """Return the ids of a text; a long one loses its end, not the tokens put around it."""
        around = self.tokenizer.encode("", add_special_tokens=True)
        tokens = self.tokenizer.encode(text, add_special_tokens=True)
        if not tokens:
            raise RequestError("a text without tokens has no vector", fix="leave out empty texts")
        if len(tokens) <= self.max_tokens:
            return tokens
        after = len(around) - 1 if around else 0
        kept = tokens[: self.max_tokens - after]
        return kept + tokens[len(tokens) - after :] if after > 0 else kept
