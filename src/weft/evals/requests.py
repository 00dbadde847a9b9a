"""What an evaluation asks of a model, in token ids.

The split rule, stated once: a text made of a context and a continuation is tokenized *as a whole*,
because that is what the model would meet; the continuation is every token from the first one in
which the whole differs from the context tokenized alone. Spaces at the end of the context belong
to the continuation, where byte-level tokenizers put them. So a token that straddles the border
counts as continuation, every byte of the continuation is scored, and the scores of all
continuations of a context are probabilities of the same event space.

A context without tokens is replaced by the tokenizer's begin (or end) token.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import DataError
from weft.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class LogLikelihood:
    """How likely is this continuation after this context?

    Attributes:
        context: At least one token.
        continuation: At least one token.
    """

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.context or not self.continuation:
            raise DataError(
                f"a log-likelihood needs a context and a continuation; they have "
                f"{len(self.context)} and {len(self.continuation)} tokens",
                fix="begin the context with the tokenizer's begin token",
            )

    @property
    def tokens(self) -> tuple[int, ...]:
        """Context and continuation."""
        return self.context + self.continuation


@dataclass(frozen=True)
class Generate:
    """What does the model say next?

    Attributes:
        prompt: Token ids.
        max_tokens: Most tokens of the answer.
    """

    prompt: tuple[int, ...]
    max_tokens: int


def split_request(tokenizer: Tokenizer, context: str, continuation: str) -> LogLikelihood:
    """Tokenize a context and a continuation by the split rule of this module.

    Raises:
        DataError: the continuation is empty, or the context is and there is no begin token.
    """
    if not continuation:
        raise DataError("the continuation is empty", fix="give it at least one character")
    stripped = context.rstrip(" ")
    whole = tokenizer.encode(context + continuation)
    border = _common_prefix(whole, tokenizer.encode(stripped))
    # The last token of the whole always belongs to the continuation.
    border = min(border, len(whole) - 1)
    head = tuple(whole[:border]) or _begin(tokenizer)
    return LogLikelihood(head, tuple(whole[border:]))


def _common_prefix(first: list[int], second: list[int]) -> int:
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))


def _begin(tokenizer: Tokenizer) -> tuple[int, ...]:
    if tokenizer.bos_id is not None:
        return (tokenizer.bos_id,)
    if tokenizer.eos_ids:
        return (tokenizer.eos_ids[0],)
    raise DataError(
        "the context is empty and the tokenizer has neither a begin nor an end token",
        fix="give a context",
    )
