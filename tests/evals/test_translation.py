from __future__ import annotations

import math

import pytest
import torch

from weft.core.errors import DataError
from weft.evals.metrics.bleu import bleu
from weft.evals.metrics.chrf import chrf
from weft.evals.translation import evaluate_translation, heldout_nll
from weft.models.encoder_decoder import EncoderDecoder
from weft.models.search import BeamConfig
from weft.models.translator import Translator, train_tokenizer
from weft.train.translation import TranslationShape

PAIRS = [("ein hund", "a dog"), ("zwei hunde schlafen", "two dogs sleep"), ("x", "y z")]


@pytest.fixture(scope="module")
def translator() -> Translator:
    tokenizer = train_tokenizer([text for pair in PAIRS for text in pair], 300)
    spec = TranslationShape(dim=16, num_layers=1, num_heads=2, hidden_dim=16).build(tokenizer)
    return Translator(EncoderDecoder(spec), tokenizer)


@pytest.mark.parametrize("beam", [None, BeamConfig(2)], ids=["greedy", "beam"])
def test_scores_are_those_of_the_translations(translator: Translator, beam: BeamConfig | None):
    translator.model.train()
    scores = evaluate_translation(translator, PAIRS, beam)
    assert translator.model.training, "left as it was"
    references = [target for _, target in PAIRS]
    assert list(scores.translations) == translator.translate([a for a, _ in PAIRS], beam)
    assert scores.bleu == bleu(scores.translations, references)
    assert scores.chrf == chrf(scores.translations, references)
    assert scores.chrf in scores.chrf_interval
    rows = scores.rows("test")
    assert [row["score"] for row in rows] == [scores.bleu.score, scores.chrf]
    assert all(row["n"] == 3 for row in rows)


def test_held_out_loss_is_that_of_all_targets_however_they_are_grouped(translator: Translator):
    losses = [heldout_nll(translator, PAIRS, tokens_per_batch=size) for size in (1, 20, 1000)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    with torch.no_grad():  # an even guess costs ln V
        translator.model.decoder.embed.weight.zero_()
    assert heldout_nll(translator, PAIRS) == pytest.approx(
        math.log(translator.model.spec.vocab_size), rel=1e-5
    )


def test_no_pairs_are_refused(translator: Translator):
    with pytest.raises(DataError):
        evaluate_translation(translator, [])
