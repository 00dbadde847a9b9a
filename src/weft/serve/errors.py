"""Every failure as OpenAI's error body with the right status.

======================  ======  =====================
raised                  status  type
======================  ======  =====================
``RequestError``        400     invalid_request_error
``ContextLengthError``  400     invalid_request_error, code context_length_exceeded
``QueueFullError``      429     rate_limit_error, with Retry-After
``BodyTooLargeError``   413     invalid_request_error
``AuthenticationError`` 401     authentication_error
``NotFoundError``       404     not_found_error
``UnavailableError``    503     service_unavailable, with Retry-After
``GenerationError``     500     server_error
anything else           500     server_error, details only in the log
======================  ======  =====================
"""

from __future__ import annotations

import http
import logging
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from weft.core.errors import (
    ContextLengthError,
    QueueFullError,
    RequestError,
    ResourceError,
    UserError,
    WeftError,
    did_you_mean,
)

log = logging.getLogger(__name__)


class BodyTooLargeError(RequestError):
    """The request body is larger than the server accepts."""

    status = 413


class AuthenticationError(RequestError):
    """The API key is missing or wrong."""

    status = 401


class NotFoundError(RequestError):
    """No such route or model."""

    status = 404

    def __init__(
        self, message: str, *, fix: str | None = None, param: str | None = None, code: str
    ) -> None:
        super().__init__(message, fix=fix, param=param)
        self.code = code


class MediaTypeError(RequestError):
    """The body is not declared as JSON."""

    status = 415


class HostError(RequestError):
    """The Host header names a machine this server does not answer for."""

    status = 421


class UnavailableError(WeftError):
    """The server is draining or its engine is not alive."""


class GenerationError(WeftError):
    """A request failed inside the engine."""

    def __init__(self, message: str, *, status: int = 500, code: str = "generation_failed") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {
    401: "invalid_api_key",
    413: "request_too_large",
    415: "unsupported_media_type",
    421: "unknown_host",
    429: "queue_full",
}


def error_body(
    message: str, *, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Return OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def describe(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return status, body and headers of the answer to a failure."""
    if isinstance(error, RequestError):
        return _describe_request_error(error)
    # ResourceError: an engine that died or closed after the request had passed the first check.
    if isinstance(error, UnavailableError | ResourceError):
        body = error_body(str(error), kind="service_unavailable", code="unavailable")
        return 503, body, {"Retry-After": "5"}
    if isinstance(error, GenerationError):
        return error.status, error_body(str(error), kind="server_error", code=error.code), {}
    if isinstance(error, UserError):
        return 400, error_body(str(error), kind="invalid_request_error"), {}
    log.error("a request failed unexpectedly", exc_info=error)
    message = "the server failed on this request; its log has the details"
    return 500, error_body(message, kind="server_error", code="internal_error"), {}


def _describe_request_error(error: RequestError) -> tuple[int, dict[str, Any], dict[str, str]]:
    code = _CODES.get(error.status, "invalid_value" if error.param else None)
    headers: dict[str, str] = {}
    if isinstance(error, ContextLengthError):
        code = "context_length_exceeded"
    if isinstance(error, NotFoundError):
        code = error.code
    if isinstance(error, QueueFullError):
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    kind = _TYPES.get(error.status, "invalid_request_error")
    return error.status, error_body(str(error), kind=kind, param=error.param, code=code), headers


def respond(error: Exception) -> JSONResponse:
    """Return the HTTP answer to a failure."""
    status, body, headers = describe(error)
    return JSONResponse(body, status_code=status, headers=headers)


async def handle_error(_: Request, error: Exception) -> JSONResponse:
    """Answer an exception raised by an endpoint (a Starlette exception handler)."""
    return respond(error)


def http_error_handler(routes: list[str]) -> Any:
    """Return the handler of Starlette's own 404 and 405, which names the nearest route."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        status = error.status_code if isinstance(error, HTTPException) else 500
        path = request.url.path
        if status == 404:
            message = f"there is no route {path}"
            return respond(NotFoundError(message, fix=did_you_mean(path, routes), code="no_route"))
        phrase = http.HTTPStatus(status).phrase.lower()
        headers = getattr(error, "headers", None) or {}
        message = f"{request.method} {path}: {phrase}"
        if "Allow" in headers:
            message += f"\n  fix: use {headers['Allow']}"
        body = error_body(message, kind="invalid_request_error", code=phrase.replace(" ", "_"))
        return JSONResponse(body, status_code=status, headers=dict(headers))

    return handle


def from_validation(error: ValidationError, model: type[BaseModel]) -> RequestError:
    """Turn pydantic's findings into one message that names the field and the nearest valid one."""
    found = error.errors(include_url=False, include_context=False)
    first = min(found, key=lambda item: item["type"] != "extra_forbidden")
    if first["type"] == "json_invalid":
        return RequestError(f"the body is not valid JSON: {first['msg']}", fix="send one object")
    path = ".".join(str(part) for part in first["loc"])
    top = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        choices = _fields_at(model, first["loc"][:-1])
        return RequestError(f"unknown field {path!r}", fix=did_you_mean(name, choices), param=path)
    if first["type"] == "missing":
        return RequestError(f"the field {path!r} is missing", fix=f"send {path!r}", param=path)
    if top is not None and top in model.model_fields:
        wanted = model.model_fields[top].description
        if wanted:
            value = _shorten(first["input"])
            return RequestError(f"{top} is {value}", fix=f"{top} must be {wanted}", param=top)
    return RequestError(f"{path or 'the body'}: {first['msg']}", param=path or None)


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the model nested at ``location``."""
    fields: Mapping[str, Any] = model.model_fields
    for part in location:
        inner = _inner_model(fields[part].annotation) if part in fields else None
        fields = inner.model_fields if inner else fields
    return [field.alias or name for name, field in fields.items()]


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        inner = _inner_model(argument)
        if inner:
            return inner
    return None


def _shorten(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
