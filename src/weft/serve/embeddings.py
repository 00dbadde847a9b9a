"""``POST /v1/embeddings``. Shapes: B texts, D width."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from weft.core.errors import UnsupportedError
from weft.serve.body import Int64, RequestBody
from weft.serve.encoder import Text, TextEncoder
from weft.serve.protocol import parse
from weft.serve.service import Service, read_json
from weft.serve.sse import until_disconnect
from weft.spec.request import FinishReason


class EmbeddingBody(RequestBody):
    """OpenAI's fields, and vLLM's for long texts."""

    input: str | list[str] | list[Int64] | list[list[Int64]] = Field(
        description="a text, a list of texts, a list of token ids or a list of such lists"
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Int64 | None = None
    truncate_prompt_tokens: Int64 | None = None

    @property
    def texts(self) -> list[Text]:
        """The inputs one by one."""
        if isinstance(self.input, str):
            return [self.input]
        ids = [item for item in self.input if isinstance(item, int)]
        return [ids] if ids else [item for item in self.input if not isinstance(item, int)]


class EmbeddingEndpoint:
    """Answers requests for vectors."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, request: Request) -> Response:
        service = self._service
        arrival_s = service.metrics.clock()
        body = parse(EmbeddingBody, await read_json(request, service.config))
        service.check_model(body.model)
        encoder = service.encoder
        if encoder is None:
            raise UnsupportedError(
                "this server's model is a decoder, which gives no embeddings",
                fix="serve the folder of an encoder (BERT, sentence-transformers)",
            )
        service.check_alive()
        encoder.check_dimensions(body.dimensions)
        tokens = await encoder.read(body.texts, truncate=body.truncate_prompt_tokens, param="input")
        vectors_BD = await until_disconnect(request, encoder.embed(tokens))
        num_tokens = sum(map(len, tokens))
        service.metrics.timer(num_tokens, arrival_s).finish(FinishReason.STOP)
        vectors_BD = shorten(vectors_BD, body.dimensions, encoder)
        # Millions of numbers as text take a while too.
        answer = await run_in_threadpool(self._render, vectors_BD, body, num_tokens)
        return Response(answer, media_type="application/json")

    def _render(self, vectors_BD: np.ndarray, body: EmbeddingBody, num_tokens: int) -> bytes:
        encode = _base64 if body.encoding_format == "base64" else np.ndarray.tolist
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector_D)}
            for index, vector_D in enumerate(vectors_BD)
        ]
        answer: dict[str, Any] = {
            "object": "list",
            "data": data,
            "model": self._service.model_name,
            "usage": usage(num_tokens),
        }
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def shorten(vectors_BD: np.ndarray, dimensions: int | None, encoder: TextEncoder) -> np.ndarray:
    """Keep the first ``dimensions`` numbers, at length 1 again if the model's vectors have it."""
    if dimensions is None or dimensions == encoder.dim:
        return vectors_BD
    short_BD = vectors_BD[:, :dimensions]
    return unit(short_BD) if encoder.normalises else short_BD


def unit(vectors_BD: np.ndarray) -> np.ndarray:
    """Return the vectors at length 1; zero stays zero.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    lengths_B1 = np.linalg.norm(vectors_BD, axis=1, keepdims=True)
    return vectors_BD / np.where(lengths_B1 > 0, lengths_B1, 1)


def usage(num_tokens: int) -> dict[str, int]:
    """Return OpenAI's usage object of work that generates nothing."""
    return {"prompt_tokens": num_tokens, "total_tokens": num_tokens}


def _base64(vector_D: Sequence[float] | np.ndarray) -> str:
    """Return OpenAI's form: little-endian float32."""
    return base64.b64encode(np.asarray(vector_D, dtype="<f4").tobytes()).decode()
