"""A run that trains a drafting head: what it writes, how it is interrupted and continued."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.helpers import CountingSource, Recorder, tiny_model
from weft.checkpoint.speculator import load_speculator
from weft.core.errors import ConfigError, Interrupted
from weft.core.events import Events
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.spec import MLPSpec, ModelShape, MoESpec
from weft.spec.shape import ExpertShape
from weft.train.optim import OptimizerConfig
from weft.train.speculator_run import SpeculatorConfig, build_head, ffn_dim_of, run_speculator

KINDS = ["eagle", "medusa", "block"]


def config(kind: str, **options: Any) -> SpeculatorConfig:
    settings = {
        "kind": kind, "steps": 6, "sequence_length": 8, "tokens_per_step": 16, "device": "cpu",
        "precision": "fp32", "log_interval_s": 0.0, "num_guesses": 2, "deterministic": True,
        "optimizer": OptimizerConfig("adamw", lr=1e-2, weight_decay=0.0),
    }  # fmt: skip
    return SpeculatorConfig(**{**settings, **options})


def train(kind: str, folder: Path, model: Decoder, *, source: Any = None, **options: Any):
    recorder = Recorder()
    with Events(recorder) as events:
        head, result = run_speculator(
            config(kind, **options), model, source or CountingSource(), folder=folder, events=events
        )
    return head, result, recorder


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_learns_and_is_written_and_the_model_stays(kind: str, tmp_path: Path):
    model = tiny_model()
    model.embed.weight.data.mul_(20)  # distributions that differ from one another
    before = {name: value.clone() for name, value in model.state_dict().items()}
    head, result, recorder = train(kind, tmp_path, model, steps=40)
    losses = [event["loss"] for event in recorder.events if event["kind"] == "step"]
    assert result.steps == len(losses) == 40
    assert losses[-1] < losses[0]
    loaded = load_speculator(tmp_path / "head", model.spec)
    assert type(loaded) is type(head)
    for name, value in head.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


class _Interrupting(CountingSource):
    def batch(self, index: int):
        if index == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return super().batch(index)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_leaves_a_head_and_continues_as_if_nothing_was(
    kind: str, tmp_path: Path
):
    model = tiny_model()
    with pytest.raises(Interrupted, match=r"head drafts as well .* by then") as caught:
        train(kind, tmp_path / "cut", model, source=_Interrupting())
    assert "same command" in str(caught.value.fix)
    early = load_speculator(tmp_path / "cut/head", model.spec)
    resumed, result, _ = train(kind, tmp_path / "cut", model)
    straight, _, _ = train(kind, tmp_path / "straight", model)
    assert result.steps == 6
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert any(not torch.equal(early.state_dict()[n], v) for n, v in resumed.state_dict().items())


def test_documents_too_short_for_a_block_teach_nothing_and_break_nothing(tmp_path: Path):
    model = tiny_model()
    short = CountingSource(length=2, num_documents=8)
    head, result, _ = train("block", tmp_path, model, source=short, steps=2)
    assert result.num_skipped == 2
    untrained = build_head(config("block"), model)
    for name, value in untrained.state_dict().items():
        assert torch.equal(head.state_dict()[name], value)


def test_heads_are_built_in_the_sizes_asked_for():
    model = tiny_model()
    assert len(build_head(config("medusa", num_guesses=3), model).heads) == 3
    assert build_head(config("eagle"), model).ffn_dim == 32
    block = build_head(config("block", num_layers=2, rank=5, ffn_dim=24), model)
    assert (len(block.blocks), block.rank, block.ffn_dim) == (2, 5, 24)
    ctx = StepContext.packed([3])
    assert block(torch.zeros(3, 16), ctx).shape == (3, 16)


def test_the_width_of_experts_is_that_of_the_active_ones():
    shape = ModelShape("qwen3_moe", 16, 2, 2, experts=ExpertShape(4, 2, expert_dim=24))
    spec = shape.build(40)
    assert isinstance(spec.layers[-1].ffn, MoESpec)
    assert ffn_dim_of(spec) == 48
    assert ffn_dim_of(tiny_model().spec) == 32
    assert isinstance(tiny_model().spec.layers[-1].ffn, MLPSpec)


def test_settings_that_cannot_work_are_refused_with_a_fix(tmp_path: Path):
    with pytest.raises(ConfigError, match="num_guesses is 0"):
        config("medusa", num_guesses=0)
    with pytest.raises(ConfigError, match="rank is -1"):
        config("block", rank=-1)
    model = tiny_model(context_length=8)
    with pytest.raises(ConfigError, match="sequence_length is 16, the model's context is 8") as e:
        train("eagle", tmp_path, model, sequence_length=16)
    assert e.value.fix == "set sequence_length to at most 8"
