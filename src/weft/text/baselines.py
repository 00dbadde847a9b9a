"""The tokenizers before subwords: words, characters, and bytes with a dialogue format.

They show what subwords solve: words need an entry for unknown ones and a huge vocabulary,
characters and bytes need long sequences.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from weft.core.errors import DataError

IGNORE: Final = -100
_WORD = re.compile(r"\w+|[^\w\s]")


def split_by_space(text: str) -> list[str]:
    """Split at white space only, so punctuation stays on its word."""
    return text.split()


def split_by_word(text: str) -> list[str]:
    """Split into runs of letters and digits, and single signs."""
    return _WORD.findall(text)


def split_by_character(text: str) -> list[str]:
    """Split into characters."""
    return list(text)


@dataclass(frozen=True)
class ClosedVocabulary:
    """A fixed list of tokens; everything else becomes ``unknown``.

    Attributes:
        tokens: token texts by id; ``unknown`` is the first.
    """

    tokens: tuple[str, ...]

    @classmethod
    def build(
        cls, token_lists: Iterable[Sequence[str]], *, max_size: int, unknown: str = "<unk>"
    ) -> ClosedVocabulary:
        """Keep the most frequent tokens, ties in the order of first appearance."""
        counts = Counter(token for tokens in token_lists for token in tokens)
        return cls((unknown, *(token for token, _ in counts.most_common(max_size - 1))))

    def encode(self, tokens: Sequence[str]) -> list[int]:
        """Return ids; a token outside the vocabulary has id 0."""
        ids = {token: id for id, token in enumerate(self.tokens)}
        return [ids.get(token, 0) for token in tokens]

    def unknown_fraction(self, tokens: Sequence[str]) -> float:
        """Return the part of ``tokens`` that the vocabulary does not have."""
        known = set(self.tokens)
        return sum(token not in known for token in tokens) / max(1, len(tokens))


class ByteTokenizer:
    """Bytes shifted past four special ids, and question-answer pairs with masked labels.

    The smallest tokenizer that can train a dialogue model: no training, no file, no unknowns.
    """

    PAD: Final = 0
    BOS: Final = 1
    SEP: Final = 2
    EOS: Final = 3
    OFFSET: Final = 4
    vocab_size: Final = 256 + OFFSET

    def encode(self, text: str) -> list[int]:
        """Return ``byte + 4`` for each UTF-8 byte."""
        return [byte + self.OFFSET for byte in text.encode("utf-8")]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; special ids are skipped."""
        data = bytes(id - self.OFFSET for id in ids if self.OFFSET <= id < self.vocab_size)
        return data.decode("utf-8", errors="replace")

    def encode_dialogue(
        self, question: str, answer: str, *, length: int | None = None
    ) -> tuple[list[int], list[int]]:
        """Return ids ``BOS question SEP answer EOS PAD…`` and labels of the same length.

        Labels are the ids themselves on the answer and its EOS, and −100 elsewhere; the shift by
        one belongs to the loss.

        Raises:
            DataError: the pair is longer than ``length``.
        """
        prompt = [self.BOS, *self.encode(question), self.SEP]
        target = [*self.encode(answer), self.EOS]
        size = len(prompt) + len(target)
        if length is not None and size > length:
            raise DataError(
                f"the dialogue has {size} tokens; length is {length}",
                fix=f"set length to at least {size} or shorten the text",
            )
        padding = (length or size) - size
        ids = prompt + target + [self.PAD] * padding
        return ids, [IGNORE] * len(prompt) + target + [IGNORE] * padding
