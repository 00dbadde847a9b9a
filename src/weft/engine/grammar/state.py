"""Where one sequence is in its grammar.

A mask has one bit per token, lowest bit first, W bytes for V tokens and one more: the last bit
stands for an end token the model does not have, and says whether the text is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import WeftError


class GrammarError(WeftError):
    """A grammar cannot go on: no token continues it, or it grew beyond the limits."""


class GrammarState:
    """Which tokens one sequence may draw now.

    Args:
        matcher: One of its own, at the beginning of the grammar; its end token is the first id
            behind the vocabulary.
        vocab_size: Rows of the model's head.

    Attributes:
        num_accepted: Tokens since the beginning.
        must_end: Nothing but an end token can follow; as of the latest mask.
    """

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self.matcher = matcher
        self.num_accepted = 0
        self.must_end = False
        self._vocab_size = vocab_size

    @property
    def num_mask_bytes(self) -> int:
        """W: whole 32-bit words."""
        return 4 * (self._vocab_size // 32 + 1)

    def mask(self, end_tokens: Sequence[int]) -> NDArray[np.uint8]:
        """Return the tokens that continue the text; end tokens exactly where it is complete.

        Asking again gives the same.

        Raises:
            GrammarError: see ``close_mask``.
        """
        bits_W = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8).copy()
        self.close_mask(bits_W, end_tokens)
        return bits_W

    def close_mask(self, bits_W: NDArray[np.uint8], end_tokens: Sequence[int]) -> None:
        """Put the sequence's own end tokens into what the matcher has computed, in place.

        Raises:
            GrammarError: no token of the vocabulary continues the text, or the grammar became too
                complex.
        """
        self._raise_if_stuck()
        complete = bool(bits_W[self._vocab_size >> 3] >> (self._vocab_size & 7) & 1)
        for token in (*end_tokens, self._vocab_size):
            _set(bits_W, token, False)
        self.must_end = not bits_W.any()
        if self.must_end and not complete:
            raise GrammarError("the grammar cannot go on: only an end token does, too early")
        for token in end_tokens:
            _set(bits_W, token, complete)

    def accept(self, token: int) -> None:
        """Go on behind a token that was drawn; not for the end token that ends the sequence.

        Raises:
            GrammarError: the grammar does not allow it, or became too complex.
        """
        if not self.matcher.consume_token(token):
            self._raise_if_stuck()
        self.num_accepted += 1

    def rollback(self, num_tokens: int) -> None:
        """Take back the last tokens, such as drafts that were not confirmed."""
        assert num_tokens <= self.num_accepted, (num_tokens, self.num_accepted)
        if num_tokens and not self.matcher.rollback(num_tokens):
            self._raise_if_stuck()
        self.num_accepted -= num_tokens

    def count_valid(self, tokens: Sequence[int]) -> int:
        """Return how many of these tokens, such as drafts, could follow; changes nothing."""
        return self.matcher.validate_tokens(list(tokens))

    def _raise_if_stuck(self) -> None:
        if self.matcher.is_error():
            reason = self.matcher.get_error().partition("\n")[0]
            if reason.startswith("NoExtension"):
                reason = "no token of the vocabulary does"
            raise GrammarError(f"the grammar cannot go on: {reason}")


def _set(bits_W: NDArray[np.uint8], index: int, value: bool) -> None:
    bit = np.uint8(1 << (index & 7))
    bits_W[index >> 3] = bits_W[index >> 3] | bit if value else bits_W[index >> 3] & ~bit
