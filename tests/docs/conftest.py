"""A folder like the one a user has after the tutorial, with a model small enough for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from weft.checkpoint.hf import save_model
from weft.data.build import CorpusConfig, build_corpus
from weft.data.corpus import Corpus
from weft.models.decoder import Decoder
from weft.spec import ModelShape
from weft.text.train import train_bpe

MODELS = ("quickstart/model", "base/model", "sft/model")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``runs/corpus``, ``runs/tokenizer`` and a model of random weights."""
    folder = tmp_path_factory.mktemp("workspace")
    notes = folder / "notes"
    notes.mkdir()
    for number in range(60):
        words = " ".join(f"word{number * index % 97} and {index}" for index in range(60))
        (notes / f"{number}.txt").write_text(
            f"Note {number} tells how the weft crosses thread {number}. {words}.\n" * 2
        )
    runs = folder / "runs"
    config = CorpusConfig(sources=(str(notes),), heldout_share=0.2)
    build_corpus(config, runs / "corpus")
    tokenizer = train_bpe(Corpus(runs / "corpus").train_texts(), vocab_size=400)
    tokenizer.save(runs / "tokenizer")
    shape = ModelShape(dim=32, num_layers=2, num_heads=2, num_kv_heads=1, context_length=512)
    spec = shape.build(
        tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
        eos_ids=tokenizer.eos_ids,
        pad_id=tokenizer.pad_id,
    )
    model = Decoder(spec)
    for name in MODELS:
        save_model(model, runs / name, tokenizer=tokenizer)
    return folder
