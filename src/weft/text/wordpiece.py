"""WordPiece: merge the pair that is most frequent for how frequent its parts are.

Source: Schuster and Nakajima 2012, in the form used with BERT (Devlin et al. 2019): continuing
pieces carry ``##``, and a word is encoded by taking the longest known piece from the left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from weft.core.errors import ConfigError

CONTINUATION = "##"


@dataclass(frozen=True)
class WordPiece:
    """A vocabulary of pieces.

    Attributes:
        vocab: piece → id; pieces that continue a word start with ``##``.
        unknown: piece for a word that cannot be spelt.
        max_characters: longer words are unknown without a search.
    """

    vocab: dict[str, int]
    unknown: str = "[UNK]"
    max_characters: int = 100

    def split(self, word: str) -> list[str]:
        """Split one word greedily, the longest piece first; all of it or nothing is known."""
        if len(word) > self.max_characters:
            return [self.unknown]
        pieces: list[str] = []
        start = 0
        while start < len(word):
            prefix = CONTINUATION if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self.vocab), None)
            if end is None:
                return [self.unknown]
            pieces.append(prefix + word[start:end])
            start = end
        return pieces

    def encode(self, word: str) -> list[int]:
        """Return the ids of one word's pieces."""
        return [self.vocab[piece] for piece in self.split(word)]


def word_pieces(word: str) -> list[str]:
    """Return the starting pieces of a word: ``hug`` → ``h ##u ##g``."""
    return [CONTINUATION * (at > 0) + character for at, character in enumerate(word)]


def scores(
    words: Sequence[Sequence[str]], counts: Sequence[int]
) -> dict[tuple[str, str], Fraction]:
    """Return f(ab) / (f(a) f(b)) of every adjacent pair, exactly."""
    pieces: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for word, count in zip(words, counts, strict=True):
        for piece in word:
            pieces[piece] += count
        for pair in pairwise(word):
            pairs[pair] += count
    return {(a, b): Fraction(n, pieces[a] * pieces[b]) for (a, b), n in pairs.items()}


def best_pair(words: Sequence[Sequence[str]], counts: Sequence[int]) -> tuple[str, str] | None:
    """Return the pair with the highest score, the first as text among equals."""
    candidates = scores(words, counts)
    return min(candidates, key=lambda pair: (-candidates[pair], pair), default=None)


def train(
    word_counts: Mapping[str, int], *, vocab_size: int, special_tokens: Sequence[str] = ("[UNK]",)
) -> WordPiece:
    """Learn pieces by highest score; among equals the pair that is first as text.

    Scores are recomputed at each merge, in time O(merges × words): meant for studying the rule, as
    every merge changes the score of most pairs.

    Raises:
        ConfigError: ``vocab_size`` has no room for special tokens and starting pieces.
    """
    words, counts = [word_pieces(word) for word in word_counts], list(word_counts.values())
    start = [*special_tokens, *sorted({piece for word in words for piece in word})]
    vocab = {piece: id for id, piece in enumerate(dict.fromkeys(start))}
    if vocab_size < len(vocab):
        raise ConfigError(
            f"vocab_size is {vocab_size}; special tokens and characters alone need {len(vocab)}",
            fix=f"set vocab_size to at least {len(vocab)}",
        )
    while len(vocab) < vocab_size and (best := best_pair(words, counts)):
        vocab.setdefault(joined(*best), len(vocab))
        words = [_merge(word, best) for word in words]
    return WordPiece(vocab, unknown=special_tokens[0] if special_tokens else "[UNK]")


def joined(first: str, second: str) -> str:
    """Join two adjacent pieces: ``##u`` and ``##g`` give ``##ug``."""
    return first + second.removeprefix(CONTINUATION)


def _merge(word: Sequence[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    at = 0
    while at < len(word):
        if tuple(word[at : at + 2]) == pair:
            merged.append(joined(*pair))
            at += 2
        else:
            merged.append(word[at])
            at += 1
    return merged
