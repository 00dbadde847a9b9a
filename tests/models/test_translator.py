from __future__ import annotations

import pytest

from weft.core.errors import ConfigError, TokenizerError
from weft.models.decoder import Decoder
from weft.models.encoder_decoder import EncoderDecoder
from weft.models.search import BeamConfig
from weft.models.translator import SEPARATOR, Translator, train_tokenizer
from weft.text.train import train_bpe
from weft.train.translation import TranslationShape

TEXTS = ["ein hund schläft", "zwei hunde schlafen", "a dog sleeps", "two dogs sleep", "x"]


def translator(kind: str) -> Translator:
    tokenizer = train_tokenizer(TEXTS, 320)
    spec = TranslationShape(kind, dim=16, num_layers=1, num_heads=2, hidden_dim=16).build(tokenizer)
    model = EncoderDecoder(spec) if kind == "encoder_decoder" else Decoder(spec)
    return Translator(model.eval(), tokenizer, extra_tokens=3)


@pytest.mark.parametrize("kind", ["encoder_decoder", "decoder_only"])
@pytest.mark.parametrize("beam", [None, BeamConfig(3)], ids=["greedy", "beam"])
def test_a_translation_does_not_depend_on_its_neighbours(kind: str, beam: BeamConfig | None):
    made = translator(kind)
    together = made.translate(TEXTS, beam, tokens_per_batch=10_000)
    assert together == made.translate(TEXTS, beam, tokens_per_batch=8)
    assert together == [made.translate([text], beam)[0] for text in TEXTS]


@pytest.mark.parametrize("kind", ["encoder_decoder", "decoder_only"])
def test_translations_end_within_their_limit(kind: str):
    made = translator(kind)
    sources = made.tokenizer.encode_batch(TEXTS)
    for source, [best] in zip(sources, made.search(sources), strict=True):
        assert len(best.tokens) <= 2 * len(source) + 3


def test_special_tokens_in_a_text_are_text():
    made = translator("decoder_only")
    [ids] = made.tokenizer.encode_batch([f"a {SEPARATOR} b"])
    assert made.tokenizer.token_id(SEPARATOR) not in ids


def test_an_empty_text_has_a_translation():
    made = translator("encoder_decoder")
    assert len(made.translate(["", "   "])) == 2
    assert made.translate([]) == []


def test_a_decoder_needs_a_separator_and_any_model_an_end():
    tokenizer = train_bpe(TEXTS, 300)
    spec = TranslationShape("decoder_only", dim=16, num_layers=1, num_heads=2).build(tokenizer)
    with pytest.raises(TokenizerError, match="no token"):
        _ = Translator(Decoder(spec), tokenizer).collate
    endless = train_bpe(TEXTS, 300, special_tokens=())
    import dataclasses

    with pytest.raises(TokenizerError, match="no end token"):
        Translator(Decoder(dataclasses.replace(spec, eos_ids=())), endless)


def test_a_vocabulary_smaller_than_the_bytes_is_refused():
    with pytest.raises(ConfigError, match="vocab_size is 200"):
        train_tokenizer(TEXTS, 200)
