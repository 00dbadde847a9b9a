"""Routing in training: penalties, loads over micro-batches, the correction bias, resuming."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.helpers import Recorder
from weft.core.events import Events
from weft.data.batch import Batch
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.nn.moe.losses import balance_loss, imbalance
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec, MoESpec, RouterSpec
from weft.train.checkpoint import CheckpointStore
from weft.train.loop_config import LoopConfig
from weft.train.muon import Muon, newton_schulz, step_scale
from weft.train.objective import NextTokenObjective
from weft.train.optim import OptimizerConfig, build_optimizer
from weft.train.parameters import merged_rows, sort_parameters
from weft.train.session import Session, TrainState
from weft.train.step import train_step
from weft.train.trainer import Trainer

SIGMOID = RouterSpec(score="sigmoid", correction_bias=True, bias_rate=0.01)


def model_with(router: RouterSpec, **rest) -> Decoder:
    """Return a decoder of a dense and two sparse layers."""
    moe = MoESpec(4, 2, MLPSpec(8, bias=True), router, **rest)
    attention = AttentionSpec(2, 1, 8)
    layers = (LayerSpec(attention, MLPSpec(16)), *(LayerSpec(attention, moe),) * 2)
    return Decoder(ModelSpec("moe", 32, 16, layers), seed=0)


def batch_of(lengths: tuple[int, ...], seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 32, sum(lengths))
    return Batch(tokens_T=tokens, labels_T=np.roll(tokens, -1), lengths=lengths)


class Source:
    def batch(self, index: int) -> Batch:
        return batch_of((12, 8), seed=index)


def test_penalty_is_minimised_and_not_reported():
    model = model_with(RouterSpec(aux_loss=0.1, z_loss=0.01)).train()
    batch = batch_of((12, 8))
    result = NextTokenObjective()(model, batch)
    ctx = StepContext.packed((12, 8))
    model(torch.from_numpy(batch.tokens_T), ctx)
    expected = sum(balance_loss(record, (12, 8)) for record in ctx.routing.values())
    torch.testing.assert_close(result.penalty_sum, expected * result.count)
    torch.testing.assert_close(result.minimised, result.loss_sum + result.penalty_sum)
    torch.testing.assert_close(result.stats["balance_loss"], result.penalty_sum.detach())
    assert NextTokenObjective()(model.eval(), batch).penalty_sum is None


def test_loads_are_summed_over_micro_batches_and_move_the_bias_once():
    model = model_with(SIGMOID).train()
    batches = [batch_of((12, 8), seed) for seed in (1, 2, 3)]
    expected = [NextTokenObjective()(model, batch).loads for batch in batches]
    result = train_step(
        model, build_optimizer(model, OptimizerConfig()), batches, NextTokenObjective()
    )
    assert set(result.loads) == {1, 2}
    for layer, counts in result.loads.items():
        assert torch.equal(counts, sum(loads[layer] for loads in expected))
        assert int(counts.sum()) == 3 * 20 * 2
        signs = torch.sign(counts.float().mean() - counts)
        bias = model.layers[layer].ffn.router.correction_bias
        torch.testing.assert_close(bias, 0.01 * signs)


def test_a_skipped_step_leaves_the_bias_alone():
    model = model_with(SIGMOID).train()
    with torch.no_grad():
        model.embed.weight[0, 0] = float("nan")
    batch = dataclasses.replace(batch_of((12, 8)), tokens_T=np.zeros(20, dtype=np.int64))
    result = train_step(
        model, build_optimizer(model, OptimizerConfig()), [batch], NextTokenObjective()
    )
    assert int(result.skipped) == 1
    assert not model.layers[1].ffn.router.correction_bias.any()


def test_a_dense_model_has_no_loads():
    attention = AttentionSpec(2, 1, 8)
    model = Decoder(ModelSpec("llama", 32, 16, (LayerSpec(attention, MLPSpec(16)),)))
    result = NextTokenObjective()(model.train(), batch_of((12, 8)))
    assert result.loads == {}
    assert result.penalty_sum is None


def test_the_correction_bias_is_in_checkpoints(tmp_path: Path):
    config = LoopConfig(steps=2, sequence_length=20, tokens_per_step=20, precision="fp32")
    model = model_with(SIGMOID)
    session = Session(model, config, TrainState(step=1))
    model.layers[1].ffn.router.correction_bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    with CheckpointStore(tmp_path, keep=1) as store:
        session.save(store)
        store.wait()
        checkpoint = store.load_latest()
    again = model_with(SIGMOID)
    Session.resume(again, config, checkpoint)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_a_run_reports_loads_and_imbalance_by_layer(tmp_path: Path):
    config = LoopConfig(
        steps=3, sequence_length=20, tokens_per_step=20, precision="fp32", log_interval_s=1e-9
    )
    model, recorder = model_with(RouterSpec(aux_loss=0.01)), Recorder()
    Trainer(model, NextTokenObjective(), Source(), config, folder=tmp_path).run(Events(recorder))
    routing, steps = recorder.of("routing"), recorder.of("step")
    assert [event["step"] for event in routing] == [1, 2, 3]
    for event, step in zip(routing, steps, strict=True):
        assert set(event["load"]) == {"1", "2"}
        for layer, load in event["load"].items():
            assert sum(load) == 20 * 2
            expected = float(imbalance(torch.tensor(load)))
            assert event["imbalance"][layer] == pytest.approx(expected, abs=1e-5)
        assert step["imbalance"] == pytest.approx(sum(event["imbalance"].values()) / 2, abs=1e-5)
        assert step["balance_loss"] > 0


def test_balancing_keeps_the_load_more_even_than_none():
    """The same model and data with and without the loss; the router starts skewed."""
    ends = {}
    for weight in (0.0, 0.3):
        model = model_with(RouterSpec(aux_loss=weight, bias=True)).train()
        with torch.no_grad():
            for layer in model.layers[1:]:
                layer.ffn.router.bias[0] = 1.5
        optimizers = build_optimizer(model, OptimizerConfig(lr=1e-2))
        for step in range(40):
            result = train_step(model, optimizers, [Source().batch(step)], NextTokenObjective())
        ends[weight] = sum(float(imbalance(load)) for load in result.loads.values())
    assert ends[0.3] < 0.5 * ends[0.0]


def test_experts_are_orthogonalised_one_by_one_and_gate_apart_from_up():
    model = model_with(RouterSpec(), shared=MLPSpec(8))
    name = "layers.1.ffn.experts.gate_up"
    assert merged_rows(model)[name] == (8, 8)
    assert merged_rows(model)["layers.1.ffn.shared.gate_up.weight"] == (8, 8)
    kinds = sort_parameters(model)
    assert {name, "layers.1.ffn.experts.down"} <= set(kinds.matrices)
    assert "layers.1.ffn.router.weight" in kinds.tables
    assert {"layers.1.ffn.experts.gate_up_bias", "layers.1.ffn.experts.down_bias"} <= set(
        kinds.vectors
    )
    weight = model.layers[1].ffn.experts.gate_up
    before, gradient = weight.detach().clone(), torch.randn_like(weight)
    weight.grad = gradient.clone()
    Muon({name: weight}, lr=0.1, nesterov=False, merged_rows=merged_rows(model)).step()
    for expert in range(4):
        for part in (slice(0, 8), slice(8, 16)):
            direction = newton_schulz(gradient[expert, part][None])[0]
            expected = before[expert, part] - 0.1 * step_scale(8, 16) * direction
            torch.testing.assert_close(weight.detach()[expert, part], expected)
