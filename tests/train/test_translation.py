from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from weft.checkpoint.encoders import load_encoder_decoder
from weft.checkpoint.hf import load_model
from weft.core.errors import ConfigError, DataError
from weft.core.events import Events
from weft.models.translator import Translator, train_tokenizer
from weft.nn.context import StepContext
from weft.train.optim import OptimizerConfig
from weft.train.schedule import ScheduleConfig
from weft.train.translation import (
    TranslationConfig,
    TranslationObjective,
    TranslationShape,
    run_translation,
    target_hidden,
)

# A language in which adjectives follow nouns and every word is another one.
NOUNS = {"hund": "dog", "katze": "cat", "vogel": "bird"}
COLOURS = {"rot": "red", "blau": "blue", "alt": "old"}
PAIRS = [
    (f"{colour} {noun}", f"{NOUNS[noun]} {COLOURS[colour]}")
    for colour, noun in itertools.product(COLOURS, NOUNS)
]
TOKENIZER = train_tokenizer([text for pair in PAIRS for text in pair], 300)
TOKENS = [tuple(TOKENIZER.encode_batch(list(pair))) for pair in PAIRS]
KINDS = ["encoder_decoder", "decoder_only"]


def config(kind: str, **options) -> TranslationConfig:
    settings = {
        "steps": 60, "tokens_per_step": 128, "sequence_length": 32, "precision": "fp32",
        "dropout": 0.0, "model": TranslationShape(kind, 32, 1, 2, 32), "log_interval_s": 0.0,
        "schedule": ScheduleConfig(kind="linear", warmup_steps=5),
        "optimizer": OptimizerConfig(lr=1e-2, matrix_lr=2e-2), "device": "cpu",
    }  # fmt: skip
    return TranslationConfig(**{**settings, **options})


def run(kind: str, folder: Path, **options):
    return run_translation(
        config(kind, **options), TOKENS, folder=folder, tokenizer=TOKENIZER, events=Events()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_language_is_learnt_saved_and_loaded(kind: str, tmp_path: Path):
    result = run(kind, tmp_path)
    load = load_encoder_decoder if kind == "encoder_decoder" else load_model
    translator = Translator(load(tmp_path / "model").eval(), TOKENIZER)
    sources, targets = [a for a, _ in PAIRS], [b for _, b in PAIRS]
    assert translator.translate(sources) == targets
    assert translator.translate(sources) == Translator(result.model.eval(), TOKENIZER).translate(
        sources
    )


def test_dropout_and_smoothing_change_what_is_learnt(tmp_path: Path):
    def weights(name: str, **options) -> torch.Tensor:
        result = run("encoder_decoder", tmp_path / name, steps=2, **options)
        return result.model.decoder.embed.weight.detach().clone()

    plain = weights("plain", label_smoothing=0.0)
    assert torch.equal(weights("again", label_smoothing=0.0), plain)
    assert not torch.equal(weights("smooth", label_smoothing=0.2), plain)
    assert not torch.equal(weights("dropout", label_smoothing=0.0, dropout=0.2), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_a_sum_over_targets_however_they_are_batched(kind: str):
    spec = config(kind).model.build(TOKENIZER)
    from weft.models.decoder import Decoder
    from weft.models.encoder_decoder import EncoderDecoder

    model = (EncoderDecoder if kind == "encoder_decoder" else Decoder)(spec)
    collate, objective = Translator(model, TOKENIZER).collate, TranslationObjective(0.1)
    together = objective(model, collate(TOKENS))
    apart = [objective(model, collate([pair])) for pair in TOKENS]
    assert int(together.count) == sum(len(target) + 1 for _, target in TOKENS)
    assert int(together.count) == sum(int(part.count) for part in apart)
    torch.testing.assert_close(together.loss_sum, sum(part.loss_sum for part in apart))
    torch.testing.assert_close(together.stats["nll"], sum(part.stats["nll"] for part in apart))


def test_a_decoder_sees_the_source_and_is_scored_on_the_target():
    from weft.models.decoder import Decoder

    model = Decoder(config("decoder_only").model.build(TOKENIZER))
    batch = Translator(model, TOKENIZER).collate(TOKENS[:2])
    expected = model(torch.from_numpy(batch.tokens_T), StepContext.packed(batch.lengths))
    assert torch.equal(target_hidden(model, batch), expected)
    assert batch.num_targets == sum(len(target) + 1 for _, target in TOKENS[:2])


def test_long_pairs_are_left_out_and_only_long_ones_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no sentence pairs"):
        run("encoder_decoder", tmp_path, sequence_length=1, tokens_per_step=64)


def test_settings_outside_their_range_are_refused():
    with pytest.raises(ConfigError, match="label_smoothing"):
        config("encoder_decoder", label_smoothing=1.0)
    with pytest.raises(ConfigError, match="dim 30"):
        TranslationShape(dim=30, num_heads=4)
