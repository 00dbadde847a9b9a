"""One request to the engine and the reasons it may end."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from weft.spec.sampling import SamplingParams


class FinishReason(enum.StrEnum):
    """Why a request ended."""

    STOP = "stop"  # an end token or stop text
    LENGTH = "length"  # max_tokens or the context length
    ABORT = "abort"  # the caller went away or asked to stop
    TIMEOUT = "timeout"  # its deadline passed
    ERROR = "error"  # something failed inside this request


@dataclass(frozen=True)
class Request:
    """Token ids in, sampling choices, and what isolates or orders it.

    Attributes:
        id: Unique within an engine.
        tokens: The prompt.
        sampling: How to draw.
        priority: Lower is served first.
        arrival_s: When it arrived, on the engine's clock.
        deadline_s: Ends with TIMEOUT when the engine's clock passes this.
        cache_salt: Requests share cached prefixes only with the same salt.
        sequence: Index among the samples of one prompt; part of the random stream.
        adapter: Key of the adapter it runs with; empty for the model as it is.
        tenant: Who shares the machine with whom, for scheduling that is fair among tenants.
        fork_of: Id of a live request whose computed tokens this one begins with and shares.
    """

    id: str
    tokens: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    priority: int = 0
    arrival_s: float = 0.0
    deadline_s: float | None = None
    cache_salt: str = ""
    sequence: int = 0
    adapter: str = ""
    tenant: str = ""
    fork_of: str | None = None


def forked(request: Request, num_samples: int) -> list[Request]:
    """Return a request and forks of it that draw further samples of its prompt.

    The prompt is computed, and scored if that was asked for, with the first of them alone.
    """
    without_prompt = replace(request.sampling, prompt_logprobs=None)
    return [
        request,
        *(
            replace(
                request,
                id=f"{request.id}-{sample}",
                sampling=without_prompt,
                sequence=sample,
                fork_of=request.id,
            )
            for sample in range(1, num_samples)
        ),
    ]
