"""What the scheduler, the runner and the front end say to each other.

One step is: the scheduler writes a `StepPlan`, the runner computes it and answers with a
`StepResult`, the scheduler settles the result into one `SequenceUpdate` per request that moved.
There is no prefill and no decode here: a sequence has tokens, some of them have keys and values
in the cache, and an item computes the next few. Chunked prefill, a resume after preemption and
a plain decode step are the same item with different numbers.

`StepItem`, `Sampled` and `SequenceUpdate` are named tuples because several hundred of each are
made every step and a frozen dataclass costs three times as much to make.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from weft.spec.request import FinishReason
from weft.spec.sampling import SamplingParams


@dataclass(frozen=True)
class NewSequence:
    """A sequence the runner has not seen; sent once, with the step that first computes it.

    The runner keeps the token history (prompt, then every token it sampled) until the id
    appears in `StepPlan.finished`. A preempted sequence is not sent again: its items simply
    start at a lower position.

    Attributes:
        id: Names the sequence in plans and results; never used twice by one scheduler.
        request_id: The caller's name for it, for logs and traces.
        prompt: Token ids.
        sampling: How to draw.
        sequence: Index among the samples of one prompt; part of the random stream.
        seed: The request's seed, or the one the scheduler drew for it.
        stop_token_ids: Every token that ends this sequence (the model's own unless `ignore_eos`,
            then the request's), to be masked while fewer than `min_tokens` were drawn.
    """

    id: int
    request_id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    sequence: int
    seed: int
    stop_token_ids: tuple[int, ...]


class StepItem(NamedTuple):
    """Compute `tokens` of one sequence at positions `start` .. `start + len(tokens) - 1`.

    Attributes:
        id: The sequence.
        tokens: Token ids to compute; at least one.
        start: Position of the first; everything before it is in the cache.
        blocks: The block table, covering positions 0 .. `start + len(tokens) - 1` or more. Read
            it afresh each step: an entry may be replaced by another block of equal content.
        sample: Draw the next token from the last position's logits. False while more known
            tokens follow (a prompt still being chunked).
    """

    id: int
    tokens: tuple[int, ...]
    start: int
    blocks: tuple[int, ...]
    sample: bool


@dataclass(frozen=True)
class StepPlan:
    """One step of work.

    Attributes:
        step: Counts from 0.
        items: What to compute, single-token items first; each sequence at most once.
        new: Sequences that appear in `items` for the first time.
        finished: Ids the runner may forget; never in `items` of this or a later plan.
        preempted: Ids that gave way in this step; not in its `items`. They start again later from
            position 0 or behind a cached prefix, so the runner may drop all but their tokens.
    """

    step: int
    items: tuple[StepItem, ...] = ()
    new: tuple[NewSequence, ...] = ()
    finished: tuple[int, ...] = ()
    preempted: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens this step computes."""
        return sum(len(item.tokens) for item in self.items)


class Sampled(NamedTuple):
    """One drawn token.

    Attributes:
        token: Its id.
        logprob: Natural logarithm of its probability after all processing of the logits.
        top: The most likely alternatives as (token, logprob), most likely first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class StepResult:
    """What the runner hands back: a token for each item with `sample`, or an error.

    Attributes:
        tokens: By sequence id.
        errors: By sequence id, in words for the caller; ends that sequence and no other.
    """

    tokens: dict[int, Sampled]
    errors: dict[int, str] = field(default_factory=dict)


class SequenceUpdate(NamedTuple):
    """News of one request.

    Attributes:
        request_id: Whose.
        token: The token drawn in this step; None when the update only ends the request.
        logprob: Of that token.
        top: Its most likely alternatives.
        finish_reason: Set in the last update of a request.
        num_cached_tokens: Prompt tokens that were found in the prefix cache.
        error: In words, with `FinishReason.ERROR`.
    """

    request_id: str
    token: int | None = None
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0
    error: str | None = None
