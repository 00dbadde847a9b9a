"""Byte-pair encoding: learn merges from word counts, and apply them.

Sources: Gage 1994 (the algorithm), Sennrich et al. 2016 (words with an end mark), Radford et al.
2019 (bytes as the alphabet). One core serves all three: what a symbol is, is the caller's choice.

Two facts make the trainer fast in plain Python. A word is held as a ``str`` whose characters are
``chr(token id)``, so finding and replacing a pair runs in C and a pair is a two-character key whose
natural order is the order of the ids. Pair counts are kept up to date by the difference that each
merge makes; the heap holds outdated counts, which are corrected when they surface.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from weft.core.errors import ConfigError


@dataclass(frozen=True)
class BPE:
    """A vocabulary and its merges, best first.

    Attributes:
        vocab: token text → id.
        merges: pairs of token texts in the order in which they were learnt.
        end_of_word: mark that the last symbol of a word carries (``</w>``), or empty.
        ignore_merges: a word that is a token by itself is not taken through the merges.
    """

    vocab: dict[str, int]
    merges: tuple[tuple[str, str], ...]
    end_of_word: str = ""
    ignore_merges: bool = False
    _ranks: dict[tuple[str, str], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ranks", {pair: rank for rank, pair in enumerate(self.merges)})

    def split(self, word: str) -> list[str]:
        """Split one word into token texts: the best-ranked pair first, leftmost among equals."""
        if self.ignore_merges and word in self.vocab:
            return [word]
        symbols = word_symbols(word, self.end_of_word)
        ranks, worst = self._ranks, len(self._ranks)
        while len(symbols) > 1:
            rank, at = min(
                (ranks.get(pair, worst), at) for at, pair in enumerate(pairwise(symbols))
            )
            if rank == worst:
                break
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        return symbols

    def encode(self, word: str) -> list[int]:
        """Return the token ids of one word; symbols outside the alphabet are dropped."""
        return [self.vocab[token] for token in self.split(word) if token in self.vocab]


def word_symbols(word: str, end_of_word: str = "") -> list[str]:
    """Return the starting symbols of a word, the last one with the end mark."""
    symbols = list(word)
    if symbols and end_of_word:
        symbols[-1] += end_of_word
    return symbols


def count_pairs(
    words: Sequence[Sequence[str]], counts: Sequence[int]
) -> dict[tuple[str, str], int]:
    """Count adjacent pairs in weighted words: the quantity that each merge maximises."""
    totals: dict[tuple[str, str], int] = defaultdict(int)
    for word, count in zip(words, counts, strict=True):
        for pair in pairwise(word):
            totals[pair] += count
    return dict(totals)


def train(
    word_counts: Mapping[str, int],
    *,
    vocab_size: int,
    special_tokens: Sequence[str] = (),
    alphabet: Iterable[str] = (),
    min_frequency: int = 1,
    end_of_word: str = "",
) -> BPE:
    """Learn a vocabulary from word counts.

    Ids are given to special tokens, then to the alphabet in code-point order, then to symbols with
    an end mark in order of first use, then to merges. The next merge is the most frequent pair;
    among equals the one with the smallest first id, then the smallest second id. This is the rule
    of the ``tokenizers`` library, whose merges the result equals.

    Args:
        word_counts: pre-tokenised words and how often each occurs.
        vocab_size: stop at this many tokens, special tokens included.
        special_tokens: tokens that text never produces; they take the first ids.
        alphabet: symbols that are tokens even if no word has them.
        min_frequency: stop when the best pair is rarer than this.
        end_of_word: mark for the last symbol of each word.

    Raises:
        ConfigError: ``vocab_size`` has no room for special tokens and alphabet.
    """
    ids = {token: id for id, token in enumerate(dict.fromkeys(special_tokens))}
    for symbol in sorted({*alphabet, *(symbol for word in word_counts for symbol in word)}):
        ids.setdefault(symbol, len(ids))
    words = []
    for word in word_counts:
        symbols = word_symbols(word, end_of_word)
        words.append("".join(chr(ids.setdefault(symbol, len(ids))) for symbol in symbols))
    if vocab_size < len(ids):
        raise ConfigError(
            f"vocab_size is {vocab_size}; special tokens and alphabet alone need {len(ids)}",
            fix=f"set vocab_size to at least {len(ids)}",
        )
    trainer = _Trainer(words, list(word_counts.values()), ids)
    return BPE(ids, trainer.run(vocab_size, max(1, min_frequency)), end_of_word)


class _Trainer:
    """The words, their pair counts and the heap of candidates while merges are learnt."""

    def __init__(self, words: list[str], counts: list[int], ids: dict[str, int]) -> None:
        self.words = words
        self.counts = counts
        self.ids = ids
        self.texts = list(ids)
        self.pair_counts: dict[str, int] = defaultdict(int)
        self.candidates: list[tuple[int, str, int, list[int]]] = []
        self.num_pushed = 0
        self._push(self._count_all())

    def run(self, vocab_size: int, min_frequency: int) -> tuple[tuple[str, str], ...]:
        """Merge until the vocabulary is full or no pair is frequent enough."""
        merges: dict[tuple[str, str], None] = {}
        while len(self.ids) < vocab_size and self.candidates:
            negative_count, pair, order, positions = heapq.heappop(self.candidates)
            count = self.pair_counts[pair]
            if count != -negative_count:
                heapq.heappush(self.candidates, (-count, pair, order, positions))
                continue
            if count < min_frequency:
                break
            first, second = self.texts[ord(pair[0])], self.texts[ord(pair[1])]
            # A pair can be learnt again when two pairs spell the same token; the later rank holds.
            merges.pop((first, second), None)
            merges[first, second] = None
            self._push(self._merge(pair, chr(self._id_of(first + second)), positions))
        return tuple(merges)

    def _id_of(self, text: str) -> int:
        """Return the id of a token; two different pairs may spell the same one."""
        if text not in self.ids:
            self.ids[text] = len(self.texts)
            self.texts.append(text)
        return self.ids[text]

    def _count_all(self) -> dict[str, list[int]]:
        positions: dict[str, list[int]] = defaultdict(list)
        pair_counts = self.pair_counts
        for index, (word, count) in enumerate(zip(self.words, self.counts, strict=True)):
            for at in range(len(word) - 1):
                pair = word[at : at + 2]
                pair_counts[pair] += count
                positions[pair].append(index)
        return positions

    def _push(self, positions: Mapping[str, list[int]]) -> None:
        for pair, indices in positions.items():
            count = self.pair_counts[pair]
            if count > 0:
                self.num_pushed += 1  # keeps the heap from comparing the lists
                heapq.heappush(self.candidates, (-count, pair, self.num_pushed, indices))

    def _merge(self, pair: str, merged: str, positions: list[int]) -> dict[str, list[int]]:
        """Replace ``pair`` in the words at ``positions``; return where new pairs arose."""
        words, counts, pair_counts = self.words, self.counts, self.pair_counts
        first, second = pair
        arisen: dict[str, list[int]] = defaultdict(list)
        for index in positions:
            word, count = words[index], counts[index]
            at = word.find(pair)
            while at >= 0:
                # Symbols before `at` are merged already, so a repeated pair sees its new neighbour.
                if at:
                    left = word[at - 1]
                    pair_counts[left + first] -= count
                    pair_counts[left + merged] += count
                    arisen[left + merged].append(index)
                if at + 2 < len(word):
                    right = word[at + 2]
                    pair_counts[second + right] -= count
                    pair_counts[merged + right] += count
                    arisen[merged + right].append(index)
                word = word[:at] + merged + word[at + 2 :]
                at = word.find(pair, at + 1)
            words[index] = word
        return arisen
