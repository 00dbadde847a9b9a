"""Text from a stream of tokens, a whole character at a time."""

from __future__ import annotations

import codecs
from typing import Protocol


class TokenBytes(Protocol):
    """What the detokenizer needs of a tokenizer."""

    @property
    def strips_first_space(self) -> bool: ...

    def token_bytes(self, id: int) -> bytes: ...

    def special_text(self, id: int) -> str | None: ...


class StreamDetokenizer:
    """Turn tokens into text as they arrive, in constant time per token.

    A character may be spread over several tokens: its bytes are held until it is complete, so no
    piece ever ends in half a character. All pieces and ``flush`` together equal
    ``tokenizer.decode``; bytes that are not UTF-8 become U+FFFD.
    """

    def __init__(self, tokenizer: TokenBytes, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = tokenizer.strips_first_space

    def push(self, token_id: int) -> str:
        """Add a token; return the characters that it completes, often none."""
        special = None if self._skip_special else self._tokenizer.special_text(token_id)
        data = self._tokenizer.token_bytes(token_id) if special is None else special.encode()
        if self._at_start and data:
            data = data.removeprefix(b" ")
            self._at_start = False
        return self._decoder.decode(data)

    def flush(self) -> str:
        """Return what is left of an unfinished character; the detokenizer starts afresh."""
        rest = self._decoder.decode(b"", final=True)
        self._at_start = self._tokenizer.strips_first_space
        return rest
