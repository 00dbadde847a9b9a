"""How well a model translates a test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from weft.data.pack import length_groups
from weft.evals.interval import Interval, bootstrap
from weft.evals.metrics.bleu import BLEU, bleu_counts, bleu_of_counts
from weft.evals.metrics.chrf import chrf_counts, chrf_of_counts
from weft.models.search import BeamConfig
from weft.models.translator import Translator
from weft.train.translation import TranslationObjective


@dataclass(frozen=True)
class TranslationScores:
    """Scores of one search on one test set.

    Attributes:
        search: "greedy" or "beam K".
        bleu: Corpus BLEU, 13a tokenisation, cased.
        chrf: Corpus chrF2.
        bleu_interval: 95 % interval of BLEU over resampled sentences (Koehn 2004, W04-3250).
        chrf_interval: The same of chrF2.
        translations: What the model wrote, in the order of the pairs.
    """

    search: str
    bleu: BLEU
    chrf: float
    bleu_interval: Interval
    chrf_interval: Interval
    translations: tuple[str, ...]

    def rows(self, task: str) -> list[dict[str, Any]]:
        """Return the scores as rows of an ``eval.json``."""
        scores = (
            ("BLEU", self.bleu.score, self.bleu_interval),
            ("chrF2", self.chrf, self.chrf_interval),
        )
        return [
            {
                "task": task,
                "metric": f"{name}, {self.search}",
                "score": score,
                "interval": [interval.low, interval.high],
                "n": len(self.translations),
            }
            for name, score, interval in scores
        ]


def evaluate_translation(
    translator: Translator, pairs: Sequence[tuple[str, str]], beam: BeamConfig | None = None
) -> TranslationScores:
    """Translate the sources of ``pairs`` and score against their targets; greedy without ``beam``.

    Raises:
        DataError: there are no pairs.
    """
    sources, references = [source for source, _ in pairs], [target for _, target in pairs]
    training = translator.model.training
    translator.model.eval()
    try:
        translations = translator.translate(sources, beam)
    finally:
        translator.model.train(training)
    bleu_rows = bleu_counts(translations, references)
    chrf_rows = chrf_counts(translations, references)
    return TranslationScores(
        search="greedy" if beam is None else f"beam {beam.num_beams}",
        bleu=bleu_of_counts(bleu_rows.sum(0)),
        chrf=chrf_of_counts(chrf_rows.sum(0)),
        bleu_interval=bootstrap(bleu_rows, lambda rows: bleu_of_counts(rows.sum(0)).score),
        chrf_interval=bootstrap(chrf_rows, lambda rows: chrf_of_counts(rows.sum(0))),
        translations=tuple(translations),
    )


@torch.no_grad()
def heldout_nll(
    translator: Translator, pairs: Sequence[tuple[str, str]], *, tokens_per_batch: int = 4096
) -> float:
    """Return the mean negative log-likelihood of target tokens under teacher forcing, in nats."""
    tokenizer, objective = translator.tokenizer, TranslationObjective()
    sources = tokenizer.encode_batch([source for source, _ in pairs])
    targets = tokenizer.encode_batch([target for _, target in pairs])
    lengths = [len(a) + len(b) for a, b in zip(sources, targets, strict=True)]
    total, count = 0.0, 0
    for rows in length_groups(lengths, tokens_per_batch):
        batch = translator.collate([(sources[row], targets[row]) for row in rows])
        result = objective(translator.model, batch)
        total, count = total + float(result.loss_sum), count + int(result.count)
    return total / max(count, 1)
