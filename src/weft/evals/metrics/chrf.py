"""Corpus chrF (Popović 2015, ACL W15-3049) as sacrebleu computes it by default."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from weft.evals.metrics.bleu import as_references, check_pairs

MAX_ORDER = 6


def chrf(
    hypotheses: Sequence[str], references: Sequence[str | Sequence[str]], *, beta: float = 2.0
) -> float:
    """Return the F score of character n-grams of order 1 to 6, from 0 to 100.

    Precision and recall are averaged over the orders; recall weighs ``beta`` squared times as
    much (chrF2). White space does not count. Of several references the best one counts.

    Raises:
        DataError: there are no hypotheses, or not as many references.

    >>> round(chrf(["the cat sat on the mat"], ["the cat sat on a mat"]), 2)
    72.08
    """
    return chrf_of_counts(chrf_counts(hypotheses, references, beta=beta).sum(0), beta=beta)


def chrf_counts(
    hypotheses: Sequence[str], references: Sequence[str | Sequence[str]], *, beta: float = 2.0
) -> np.ndarray:
    """Return what each sentence adds to the sums behind chrF, int64, [sentences, 6, 3].

    For each order: n-grams of the hypothesis, of the reference, in both.

    Raises:
        DataError: there are no hypotheses, or not as many references.
    """
    check_pairs(hypotheses, references)
    counts = []
    for hypothesis, given in zip(hypotheses, references, strict=True):
        ours = _ngrams(hypothesis)
        options = [_compare(ours, _ngrams(text)) for text in as_references(given)]
        counts.append(max(options, key=lambda option: chrf_of_counts(option, beta=beta)))
    return np.stack(counts)


def chrf_of_counts(sums: np.ndarray, *, beta: float = 2.0) -> float:
    """Return the score of a corpus from the sums of ``chrf_counts`` over its sentences, [6, 3]."""
    used = [row for row in sums.tolist() if row[0] and row[1]]
    if not used:
        return 0.0
    precision = sum(matches / hypothesis for hypothesis, _, matches in used) / len(used)
    recall = sum(matches / reference for _, reference, matches in used) / len(used)
    weighted = beta**2 * precision + recall
    return 100 * (1 + beta**2) * precision * recall / weighted if weighted else 0.0


def _ngrams(text: str) -> list[Counter[str]]:
    text = "".join(text.split())
    return [
        Counter(text[start : start + order] for start in range(len(text) - order + 1))
        for order in range(1, MAX_ORDER + 1)
    ]


def _compare(ours: Sequence[Counter[str]], theirs: Sequence[Counter[str]]) -> np.ndarray:
    """Count per order; an order that the reference lacks does not count against the hypothesis."""
    return np.array(
        [
            (hyp.total() if ref else 0, ref.total(), (hyp & ref).total())
            for hyp, ref in zip(ours, theirs, strict=True)
        ],
        dtype=np.int64,
    )
