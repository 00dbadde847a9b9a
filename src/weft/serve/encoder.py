"""An encoder behind HTTP: texts become tokens, and tokens vectors, or a refusal with numbers.

Shapes: B texts, D width.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from starlette.concurrency import run_in_threadpool

from weft.core.errors import ContextLengthError, RequestError, UnsupportedError
from weft.engine.beam import BeamParams, BeamResult
from weft.serve.backend import Delta, Stats
from weft.serve.errors import GenerationError
from weft.spec.request import Request

if TYPE_CHECKING:
    from weft.engine.async_embedder import AsyncEmbedder

# A text and what a tokenizer puts around it need this many.
MIN_TOKENS = 3

Text = str | Sequence[int]


class TextEncoder:
    """Reads texts off the event loop and has them embedded.

    Args:
        embedder: Computes the vectors.
        max_inputs: Most texts of one request.
    """

    def __init__(self, embedder: AsyncEmbedder, *, max_inputs: int) -> None:
        self._async = embedder
        self._embedder = embedder.embedder
        self._max_inputs = max_inputs

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._embedder.dim

    @property
    def normalises(self) -> bool:
        """Whether vectors have the length 1."""
        return self._embedder.pooling.normalise

    def check_dimensions(self, dimensions: int | None) -> None:
        """Refuse a width the model was not trained to be cut to.

        Raises:
            RequestError: naming ``dimensions``.
        """
        known = sorted({*self._embedder.short_dims, self.dim})
        if dimensions is None or dimensions in known:
            return
        widths = ", ".join(map(str, known))
        raise RequestError(
            f"dimensions is {dimensions}; vectors of this model mean something at {widths}",
            fix="leave dimensions out, or list the widths the model was trained for as "
            "matryoshka_dimensions in its config.json",
            param="dimensions",
        )

    async def read(
        self, texts: Sequence[Text], *, truncate: int | None, param: str
    ) -> list[list[int]]:
        """Return the tokens of each text; token ids are taken as they are.

        Args:
            texts: Texts or token ids.
            truncate: Cut texts to this many tokens, -1 to what the model can read.
            param: The field that holds them.

        Raises:
            ContextLengthError: a text is too long and is not to be cut.
            RequestError: no text, too many, one without tokens, ids outside the vocabulary.
        """
        if not 1 <= len(texts) <= self._max_inputs:
            raise RequestError(
                f"{param} has {len(texts)} texts",
                fix=f"send 1 to {self._max_inputs} in one request",
                param=param,
            )
        limit = self._limit(truncate)
        return await run_in_threadpool(self._read_all, texts, limit, param)

    async def embed(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        """Return one vector per text, [B, D] float32.

        Raises:
            QueueFullError: too many texts are waiting.
            GenerationError: a vector is not finite.
        """
        vectors_BD = await self._async.embed_tokens(tokens)
        wrong = np.flatnonzero(~np.isfinite(vectors_BD).all(axis=1))
        if len(wrong):
            raise GenerationError(f"the vector of text {wrong[0]} is not finite: NaN or infinite")
        return vectors_BD

    def _limit(self, truncate: int | None) -> int | None:
        longest = self._embedder.max_tokens
        if truncate is None or truncate == -1:
            return None if truncate is None else longest
        if not MIN_TOKENS <= truncate <= longest:
            raise RequestError(
                f"truncate_prompt_tokens is {truncate}",
                fix=f"send {MIN_TOKENS} to {longest}, or -1 for {longest}",
                param="truncate_prompt_tokens",
            )
        return truncate

    def _read_all(self, texts: Sequence[Text], limit: int | None, param: str) -> list[list[int]]:
        return [self._read(index, text, limit, param) for index, text in enumerate(texts)]

    def _read(self, index: int, text: Text, limit: int | None, param: str) -> list[int]:
        try:
            tokens = self._embedder.encode(text) if isinstance(text, str) else list(text)
        except RequestError as error:
            error.param = param
            raise
        self._check_ids(index, tokens, param)
        if limit is not None:
            return self._embedder.cut(tokens, limit) if isinstance(text, str) else tokens[:limit]
        longest = self._embedder.max_tokens
        if len(tokens) > longest:
            raise ContextLengthError(
                f"text {index} of {param} has {len(tokens)} tokens, the model reads {longest}",
                fix="shorten it, or send truncate_prompt_tokens: -1 to have its end cut off",
                param=param,
            )
        return tokens

    def _check_ids(self, index: int, tokens: Sequence[int], param: str) -> None:
        size = self._embedder.model.spec.vocab_size
        if not tokens:
            raise RequestError(
                f"text {index} of {param} has no tokens", fix="send at least one", param=param
            )
        wrong = next((token for token in tokens if not 0 <= token < size), None)
        if wrong is not None:
            raise RequestError(
                f"token id {wrong} is outside the vocabulary",
                fix=f"ids are 0 to {size - 1}",
                param=param,
            )


class EncoderOnly:
    """The engine of a server that cannot generate; it lives as long as its encoder."""

    def __init__(self, embedder: AsyncEmbedder) -> None:
        self._embedder = embedder

    @property
    def healthy(self) -> bool:
        return self._embedder.healthy

    @property
    def state(self) -> str:
        return "running"

    async def submit(self, request: Request) -> AsyncIterator[Delta]:
        """Refuse."""
        raise UnsupportedError("an encoder generates no text", fix="serve a decoder")

    async def beam_search(self, prompt: Sequence[int], params: BeamParams) -> list[BeamResult]:
        """Refuse."""
        raise UnsupportedError("an encoder generates no text", fix="serve a decoder")

    def abort(self, request_id: str) -> None:
        """Do nothing: no request was ever accepted."""

    async def stats(self) -> Stats:
        """Refuse: there is no scheduler."""
        raise UnsupportedError("an encoder has no scheduler to tell about")
