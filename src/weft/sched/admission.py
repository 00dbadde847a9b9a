"""Requests that are refused at once, with the numbers and the way out."""

from __future__ import annotations

from weft.core.errors import ContextLengthError, QueueFullError, RequestError
from weft.sched.config import SchedulerConfig
from weft.spec.request import Request


def check_prompt(request: Request, config: SchedulerConfig) -> None:
    """Refuse a prompt that could never be served, however long it waited.

    Raises:
        RequestError: the prompt is empty.
        ContextLengthError: it leaves no room for one new token in the context or the KV cache.
    """
    num_tokens, limit = len(request.tokens), config.context_limit
    if num_tokens == 0:
        raise RequestError("the prompt is empty", fix="send at least one token", param="prompt")
    if num_tokens < limit:
        return
    fix = f"shorten the prompt by at least {num_tokens - limit + 1} tokens"
    if limit == config.max_context:
        place = f"the context of {limit} tokens"
    else:
        place = f"the KV cache of {config.num_blocks} blocks x {config.block_size} tokens"
        fix += " or give the KV cache more memory"
    raise ContextLengthError(
        f"the prompt has {num_tokens} tokens; {place} holds a prompt of at most {limit - 1} "
        "and one new token",
        fix=fix,
        param="prompt",
    )


def check_number(num_requests: int, config: SchedulerConfig) -> None:
    """Refuse more requests at once than may ever wait.

    Raises:
        RequestError: it is hopeless to come back.
    """
    if num_requests > config.max_waiting:
        raise RequestError(
            f"{num_requests} samples are more than the {config.max_waiting} requests that may wait",
            fix=f"ask for at most {config.max_waiting}, or raise max_waiting",
            param="n",
        )


def duplicate_id(request: Request) -> RequestError:
    """Build the refusal for an id that belongs to a request still being served."""
    return RequestError(
        f"request id {request.id!r} is in use", fix="give each request its own id", param="id"
    )


def queue_full(num_waiting: int, retry_after_s: int) -> QueueFullError:
    """Build the refusal for a full queue."""
    return QueueFullError(
        f"{num_waiting} requests are waiting, as many as max_waiting allows",
        retry_after_s=retry_after_s,
        fix=f"try again in {retry_after_s} s, or raise max_waiting",
    )
