"""``POST /v1/rerank`` (Jina's and vLLM's fields) and ``POST /v1/score`` (vLLM's)."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from weft.core.errors import RequestError
from weft.serve.body import Body, Int64, RequestBody
from weft.serve.embeddings import usage
from weft.serve.protocol import parse
from weft.serve.scoring import Pairs, scorer_of
from weft.serve.service import Service, read_json
from weft.serve.sse import until_disconnect


class DocumentBody(Body):
    """A document given as an object."""

    text: str


class RerankBody(RequestBody):
    """A query and the documents to put into order."""

    query: str
    documents: list[str | DocumentBody]
    top_n: Int64 | None = None
    return_documents: bool = True
    truncate_prompt_tokens: Int64 | None = None

    @property
    def texts(self) -> list[str]:
        """The documents' texts."""
        return [item if isinstance(item, str) else item.text for item in self.documents]

    @property
    def num_results(self) -> int:
        """How many documents the client wants back; 0 is vLLM's way to say all.

        Raises:
            RequestError: a negative number.
        """
        if self.top_n is not None and self.top_n < 0:
            raise RequestError(
                f"top_n is {self.top_n}", fix="send 1 or more, or leave it out", param="top_n"
            )
        return self.top_n or len(self.documents)


class ScoreBody(RequestBody):
    """Two texts, a text and a list, or two lists of one length."""

    text_1: str | list[str]
    text_2: str | list[str]
    truncate_prompt_tokens: Int64 | None = None

    @property
    def pairs(self) -> Pairs:
        """The texts as pairs."""
        fields = ("text_1", "text_2")
        return Pairs(
            _as_list(self.text_1), _as_list(self.text_2), fields, self.truncate_prompt_tokens
        )


class RerankEndpoint:
    """Puts documents into the order of their relevance to a query."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, request: Request) -> JSONResponse:
        service = self._service
        arrival_s = service.metrics.clock()
        body = parse(RerankBody, await read_json(request, service.config))
        service.check_model(body.model)
        num_results, texts = body.num_results, body.texts
        pairs = Pairs(
            texts,
            [body.query],
            fields=("documents", "query"),
            truncate=body.truncate_prompt_tokens,
            between="\n",
        )
        head = service.head("rerank", "list")
        scoring = scorer_of(service).score(pairs, head["id"], arrival_s)
        scores = await until_disconnect(request, scoring)
        order = sorted(range(len(texts)), key=lambda index: (-scores.values[index], index))
        results = [
            _result(index, scores.values[index], texts[index] if body.return_documents else None)
            for index in order[:num_results]
        ]
        return JSONResponse(
            {
                "id": head["id"],
                "model": service.model_name,
                "usage": usage(scores.num_tokens),
                "results": results,
            }
        )


class ScoreEndpoint:
    """Scores pairs of texts, in their order."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, request: Request) -> JSONResponse:
        service = self._service
        arrival_s = service.metrics.clock()
        body = parse(ScoreBody, await read_json(request, service.config))
        service.check_model(body.model)
        head = service.head("score", "list")
        scoring = scorer_of(service).score(body.pairs, head["id"], arrival_s)
        scores = await until_disconnect(request, scoring)
        data = [
            {"index": index, "object": "score", "score": value}
            for index, value in enumerate(scores.values)
        ]
        return JSONResponse({**head, "data": data, "usage": usage(scores.num_tokens)})


def _result(index: int, score: float, text: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {"index": index, "relevance_score": score}
    if text is not None:
        result["document"] = {"text": text}
    return result


def _as_list(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts
