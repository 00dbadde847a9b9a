from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.helpers import Recorder, tiny_model
from weft.checkpoint.hf import load_model
from weft.core import config as configs
from weft.core.errors import ConfigError
from weft.core.events import Events
from weft.data.examples import ExampleLoader
from weft.models.heads import logits
from weft.nn.context import StepContext
from weft.train.objective import NextTokenObjective
from weft.train.optim import OptimizerConfig
from weft.train.schedule import ScheduleConfig
from weft.train.sft import SFTConfig, run_sft, with_epochs


@dataclass(frozen=True)
class Example:
    tokens: tuple[int, ...]
    mask: tuple[bool, ...]


def _examples(num: int = 10) -> list[Example]:
    rng = np.random.default_rng(0)
    result = []
    for prompt in range(num):
        answer = rng.integers(0, 32, int(rng.integers(1, 4))).tolist()
        tokens = (prompt, 31, *answer)
        result.append(Example(tokens, (False, False, *[True] * len(answer))))
    return result


def _config(**changes) -> SFTConfig:
    settings = {
        "epochs": 60.0,
        "sequence_length": 16,
        "tokens_per_step": 64,
        "precision": "fp32",
        "optimizer": OptimizerConfig(lr=0.02, weight_decay=0.0),
        "schedule": ScheduleConfig(kind="linear", warmup_steps=4),
    }
    return SFTConfig(**{**settings, **changes})


def test_fine_tuning_overfits_pairs_to_exact_answers(tmp_path: Path) -> None:
    """Row U01."""
    model, examples = tiny_model(dim=32, ffn_dim=64), _examples()
    recorder = Recorder()
    result = run_sft(_config(), model, examples, folder=tmp_path, events=Events(recorder))
    assert result.steps == 60
    assert recorder.of("note")[0]["text"].startswith("10 examples in ")
    saved = load_model(tmp_path / "model")
    for example in examples:
        answer = [t for t, m in zip(example.tokens, example.mask, strict=True) if m]
        assert _greedy(saved, list(example.tokens[:2]), len(answer)) == answer


@pytest.mark.parametrize("sequence_length", [8, 32])
def test_packed_batches_have_the_loss_of_single_examples(sequence_length: int) -> None:
    """Row T14: the same sum and the same count, however examples share sequences."""
    model, examples, objective = tiny_model(), _examples(), NextTokenObjective()
    sums = []
    for packing in ("best_fit", "none"):
        loader = ExampleLoader(
            examples,
            tokens_per_batch=sequence_length,
            seed=0,
            sequence_length=sequence_length,
            packing=packing,
        )
        with torch.no_grad():
            parts = [objective(model, loader.batch(i)) for i in range(loader.batches_per_epoch)]
        sums.append((sum(float(p.loss_sum) for p in parts), sum(int(p.count) for p in parts)))
    assert sums[0][1] == sums[1][1] == sum(sum(example.mask) for example in examples)
    assert sums[0][0] == pytest.approx(sums[1][0], rel=1e-6)


def test_prompt_tokens_are_never_targets() -> None:
    """The gradient does not change when what the prompt would predict changes."""
    model, objective = tiny_model(), NextTokenObjective()
    loader = ExampleLoader(_examples(3), tokens_per_batch=16, seed=0, sequence_length=16)
    batch = loader.batch(0)
    assert batch.num_targets == sum(sum(example.mask) for example in _examples(3))
    result = objective(model, batch)
    assert int(result.count) == batch.num_targets
    assert torch.isfinite(result.loss_sum)


def test_epochs_become_steps() -> None:
    config = _config(epochs=2.5, tokens_per_step=64, micro_batch_tokens=32)
    assert with_epochs(config, micro_batches_per_epoch=5).steps == 7
    assert with_epochs(_config(epochs=2.0, steps=3), 5).steps == 3
    assert with_epochs(_config(epochs=None, steps=3), 5).steps == 3


def test_impossible_epochs_are_refused() -> None:
    with pytest.raises(ConfigError, match="epochs"):
        SFTConfig(epochs=0.0)


def test_every_setting_has_help() -> None:
    assert [f.key for f in configs.fields(SFTConfig()) if not f.help] == []


@torch.no_grad()
def _greedy(model, tokens: list[int], num_new: int) -> list[int]:
    for _ in range(num_new):
        hidden_TD = model(torch.tensor(tokens), StepContext.packed([len(tokens)]))
        tokens = [*tokens, int(logits(model, hidden_TD)[-1].argmax())]
    return tokens[-num_new:]
