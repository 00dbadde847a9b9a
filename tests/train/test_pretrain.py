from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.helpers import Recorder
from weft.checkpoint.hf import load_model
from weft.core import config as configs
from weft.core.errors import DataError, ResourceError
from weft.core.events import Events
from weft.data.mix import Mixture
from weft.data.shards import TokenDocument, TokenShards, write_shards
from weft.spec import ModelShape
from weft.text.tokenizer import Tokenizer
from weft.text.train import train_bpe
from weft.train.loop_config import resolve_device
from weft.train.optim import OptimizerConfig
from weft.train.pretrain import PretrainConfig, bytes_per_token, run_pretrain
from weft.train.schedule import ScheduleConfig

TEXTS = [f"the quick brown fox number {i} jumps over the lazy dog {i}\n" for i in range(60)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(TEXTS, 300)


@pytest.fixture(scope="module")
def shards(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    folder = tmp_path_factory.mktemp("shards")
    documents = [TokenDocument(np.array(tokenizer.encode(t)), len(t.encode())) for t in TEXTS]
    write_shards(
        folder,
        documents,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        meta={},
    )
    return TokenShards(folder)


def _config(**changes) -> PretrainConfig:
    settings = {
        "steps": 40,
        "sequence_length": 32,
        "tokens_per_step": 128,
        "precision": "fp32",
        "sample_interval_s": 0.0,
        "eval_interval_s": 0.0,
        "log_interval_s": 0.0,
        "model": ModelShape(dim=32, num_layers=1, num_heads=2, num_kv_heads=1, context_length=64),
        "optimizer": OptimizerConfig(lr=0.01),
        "schedule": ScheduleConfig(warmup_steps=4),
    }
    return PretrainConfig(**{**settings, **changes})


def test_pretraining_ends_with_a_model_folder(
    tmp_path: Path, tokenizer: Tokenizer, shards: TokenShards
) -> None:
    recorder = Recorder()
    result = run_pretrain(
        _config(),
        folder=tmp_path,
        tokenizer=tokenizer,
        train=shards,
        heldout=shards,
        events=Events(recorder),
        on_sample=lambda model: f"sample of {model.num_parameters} parameters",
    )
    steps = recorder.of("step")
    assert steps[-1]["bits_per_byte"] < 0.6 * steps[0]["bits_per_byte"]
    assert result.metrics["bits_per_byte"] == pytest.approx(steps[-1]["bits_per_byte"], rel=0.3)
    assert recorder.of("sample")[0]["text"].startswith("sample of")
    assert recorder.of("eval")[-1]["final"]
    model = load_model(tmp_path / "model")
    assert (model.head_weight == result.model.head_weight).all()
    assert Tokenizer.load(tmp_path / "model").fingerprint == tokenizer.fingerprint


def test_shards_of_another_tokenizer_are_refused(tmp_path: Path, shards: TokenShards) -> None:
    other = train_bpe(["something else entirely"], 280)
    with pytest.raises(DataError, match="tokenizer"):
        run_pretrain(
            _config(),
            folder=tmp_path,
            tokenizer=other,
            train=shards,
            heldout=None,
            events=Events(),
        )


def test_configuration_survives_toml(tmp_path: Path) -> None:
    config = _config(minutes=2.5)
    path = tmp_path / "config.toml"
    path.write_text(configs.to_toml(config))
    assert configs.load_toml(PretrainConfig(), path) == config


def test_every_setting_has_help() -> None:
    assert [f.key for f in configs.fields(PretrainConfig()) if not f.help] == []


def test_a_mixture_of_shards_is_learnt_from(
    shards: TokenShards, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    config = PretrainConfig(
        steps=2,
        model=ModelShape(dim=32, num_layers=1, num_heads=2, num_kv_heads=1),
        sequence_length=32,
        tokens_per_step=64,
        precision="fp32",
    )
    mixture = Mixture([shards, shards], [0.75, 0.25])
    assert bytes_per_token(mixture) == pytest.approx(shards.num_bytes / shards.num_tokens)
    result = run_pretrain(
        config, folder=tmp_path, tokenizer=tokenizer, train=mixture, heldout=None, events=Events()
    )
    assert result.steps == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_named() -> None:
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ResourceError, match="no CUDA device"):
        resolve_device("cuda")
