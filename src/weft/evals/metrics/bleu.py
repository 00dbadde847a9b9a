"""Corpus BLEU (Papineni et al. 2002, ACL P02-1040) as sacrebleu computes it by default."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.core.errors import DataError
from weft.evals.metrics.tokenize import tokenize_13a

MAX_ORDER = 4


@dataclass(frozen=True)
class BLEU:
    """A BLEU score and what it is made of.

    Attributes:
        score: From 0 to 100.
        precisions: Share of matching n-grams for n = 1 to 4, in per cent, smoothed.
        brevity_penalty: Factor below one where the hypotheses are shorter than the references.
        num_words: Words of all hypotheses.
        num_reference_words: Words of all references (of those closest in length).
    """

    score: float
    precisions: tuple[float, ...]
    brevity_penalty: float
    num_words: int
    num_reference_words: int


def bleu(
    hypotheses: Sequence[str], references: Sequence[str | Sequence[str]], *, lowercase: bool = False
) -> BLEU:
    """Score hypotheses against one or more references each, 13a tokenisation.

    Geometric mean of the clipped n-gram precisions times the brevity penalty. Orders without a
    match count 1 / (2^k total), k being how many such orders there were (smoothing "exp", method 3
    of Chen and Cherry 2014, W14-3346).

    Raises:
        DataError: there are no hypotheses, or not as many references.

    >>> round(bleu(["the cat sat on the mat"], ["the cat sat on a mat"]).score, 2)
    53.73
    """
    return bleu_of_counts(bleu_counts(hypotheses, references, lowercase=lowercase).sum(0))


def bleu_counts(
    hypotheses: Sequence[str], references: Sequence[str | Sequence[str]], *, lowercase: bool = False
) -> np.ndarray:
    """Return what each sentence adds to the sums behind BLEU, int64, [sentences, 10].

    Columns: words, words of the reference closest in length, n-grams that match for n = 1 to 4,
    n-grams in all for n = 1 to 4.

    Raises:
        DataError: there are no hypotheses, or not as many references.
    """
    check_pairs(hypotheses, references)
    counts = np.zeros((len(hypotheses), 2 + 2 * MAX_ORDER), dtype=np.int64)
    for row, hypothesis, given in zip(counts, hypotheses, references, strict=True):
        words = _words(hypothesis, lowercase)
        options = [_words(text, lowercase) for text in as_references(given)]
        row[0] = len(words)
        row[1] = _closest_length(len(words), [len(option) for option in options])
        limits = _most_of_each([_ngrams(option) for option in options])
        for ngram, count in _ngrams(words).items():
            row[1 + len(ngram)] += min(count, limits[ngram])
            row[1 + MAX_ORDER + len(ngram)] += count
    return counts


def check_pairs(hypotheses: Sequence[str], references: Sequence[str | Sequence[str]]) -> None:
    """Refuse lists that do not belong together.

    Raises:
        DataError: there are no hypotheses, or not as many references.
    """
    if not hypotheses or len(hypotheses) != len(references):
        raise DataError(
            f"there are {len(hypotheses)} hypotheses and {len(references)} references",
            fix="give one reference (or list of references) for each hypothesis",
        )


def as_references(given: str | Sequence[str]) -> Sequence[str]:
    """Return one reference as a list of one."""
    return [given] if isinstance(given, str) else given


def _words(text: str, lowercase: bool) -> list[str]:
    return tokenize_13a(text.lower() if lowercase else text)


def _ngrams(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(
        tuple(words[start : start + order])
        for order in range(1, MAX_ORDER + 1)
        for start in range(len(words) - order + 1)
    )


def _most_of_each(counters: Sequence[Counter[tuple[str, ...]]]) -> Counter[tuple[str, ...]]:
    """Return the largest count of each n-gram in any reference."""
    result: Counter[tuple[str, ...]] = Counter()
    for counter in counters:
        result |= counter
    return result


def _closest_length(length: int, options: Sequence[int]) -> int:
    """Return the option closest to ``length``, the shorter one of two."""
    return min(options, key=lambda option: (abs(option - length), option))


def bleu_of_counts(sums: np.ndarray) -> BLEU:
    """Return the score of a corpus from the sums of ``bleu_counts`` over its sentences, [10]."""
    num_words, num_reference_words, *rest = sums.tolist()
    matches, totals = rest[:MAX_ORDER], rest[MAX_ORDER:]
    penalty = 1.0
    if num_words < num_reference_words:
        penalty = math.exp(1 - num_reference_words / num_words) if num_words else 0.0
    precisions, smoothing = [0.0] * MAX_ORDER, 1.0
    if any(matches):
        for order, (match, total) in enumerate(zip(matches, totals, strict=True)):
            if total and not match:
                smoothing *= 2
            if total:
                precisions[order] = 100 * (match or 1 / smoothing) / total
    score = 0.0
    if all(precisions):
        score = penalty * math.exp(sum(math.log(value) for value in precisions) / MAX_ORDER)
    return BLEU(score, tuple(precisions), penalty, int(num_words), int(num_reference_words))
