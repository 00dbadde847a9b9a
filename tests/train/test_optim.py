from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from tests.train.helpers import make_batch, tiny_model
from weft.core.errors import CheckpointError, ConfigError
from weft.train import optim_reference as rules
from weft.train.objective import NextTokenObjective
from weft.train.optim import OptimizerConfig, OptimizerName, build_optimizer
from weft.train.parameters import sort_parameters
from weft.train.step import train_step

NAMES = get_args(OptimizerName)
ADAM = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
BETAS = {"betas": (0.9, 0.95), "eps": 1e-8}
CASES = {
    "sgd": (rules.sgd, {}, torch.optim.SGD, {}),
    "momentum": (rules.momentum, {"mu": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (
        rules.nesterov,
        {"mu": 0.9},
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True},
    ),
    "asgd": (rules.asgd, {}, torch.optim.ASGD, {}),
    "rprop": (rules.rprop, {}, torch.optim.Rprop, {}),
    "adagrad": (rules.adagrad, {"eps": 1e-10}, torch.optim.Adagrad, {}),
    "adadelta": (
        rules.adadelta,
        {"rho": 0.9, "eps": 1e-6},
        torch.optim.Adadelta,
        {"rho": 0.9, "eps": 1e-6},
    ),
    "rmsprop": (
        rules.rmsprop,
        {"alpha": 0.95, "eps": 1e-8},
        torch.optim.RMSprop,
        {"alpha": 0.95},
    ),
    "adam": (rules.adam, ADAM, torch.optim.Adam, BETAS),
    "adamw": (
        rules.adamw,
        {**ADAM, "weight_decay": 0.1},
        torch.optim.AdamW,
        {**BETAS, "weight_decay": 0.1, "fused": True},
    ),
    "nadam": (rules.nadam, ADAM, torch.optim.NAdam, BETAS),
    "radam": (rules.radam, ADAM, torch.optim.RAdam, BETAS),
}


@pytest.mark.parametrize("name", CASES)
def test_plain_rule_equals_torch_for_100_steps(name: str) -> None:
    """Row F04: largest difference below 1e-6 after 100 steps on a quadratic with noise."""
    rule, rates, torch_class, options = CASES[name]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    curvature = torch.rand(7, 5, generator=generator, dtype=torch.float64) + 0.1
    ours, state = start.clone(), {}
    theirs = nn.Parameter(start.clone())
    optimizer = torch_class([theirs], lr=0.01, **options)
    for t in range(1, 101):
        noise = torch.randn(7, 5, generator=generator, dtype=torch.float64)
        ours = rule(ours, curvature * ours + noise, state, t, lr=0.01, **rates)
        theirs.grad = curvature * theirs.detach() + noise
        optimizer.step()
    assert (ours - start).abs().max() > 1e-3
    assert (ours - theirs.detach()).abs().max() < 1e-6


def test_asgd_reference_keeps_the_average_torch_keeps() -> None:
    p, state = torch.ones(3, dtype=torch.float64), {}
    theirs = nn.Parameter(p.clone())
    optimizer = torch.optim.ASGD([theirs], lr=0.1)
    for t in range(1, 6):
        p = rules.asgd(p, 2 * p, state, t, lr=0.1)
        theirs.grad = 2 * theirs.detach()
        optimizer.step()
    torch.testing.assert_close(state["mean"], optimizer.state[theirs]["ax"])


def test_parameters_are_sorted_by_what_they_do() -> None:
    kinds = sort_parameters(tiny_model(tie_embeddings=False))
    assert set(kinds.tables) == {"embed.weight", "head.weight"}
    assert all(p.ndim == 1 for p in kinds.vectors.values())
    assert "norm.weight" in kinds.vectors
    assert len(kinds.matrices) == 4 * 2  # qkv, out, gate_up, down in two layers


def test_frozen_parameters_are_left_out() -> None:
    model = tiny_model()
    model.embed.weight.requires_grad_(False)
    optimizers = build_optimizer(model, OptimizerConfig())
    assert all(p is not model.embed.weight for p in optimizers.parameters)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ConfigError, match="requires a gradient"):
        build_optimizer(model, OptimizerConfig())


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_lowers_the_loss(name: OptimizerName) -> None:
    lr = {"adadelta": 1.0, "sgd": 0.3, "asgd": 0.3}.get(name, 0.01)
    model, batch = tiny_model(), make_batch([8, 8])
    optimizers = build_optimizer(model, OptimizerConfig(name=name, lr=lr))
    losses = [_step(model, optimizers, batch) for _ in range(15)]
    assert losses[-1] < losses[0] - 0.01


@pytest.mark.parametrize("name", NAMES)
def test_state_survives_saving_bit_for_bit(name: OptimizerName) -> None:
    config, batch = OptimizerConfig(name=name, lr=0.01), make_batch([8, 8])
    model = tiny_model()
    optimizers = build_optimizer(model, config)
    for _ in range(3):
        _step(model, optimizers, batch)
    saved = {key: value.clone() for key, value in optimizers.state_dict().items()}
    copy = tiny_model()
    copy.load_state_dict(model.state_dict())
    restored = build_optimizer(copy, config)
    restored.load_state_dict(saved)
    for _ in range(2):
        _step(model, optimizers, batch)
        _step(copy, restored, batch)
    for ours, theirs in zip(model.parameters(), copy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_non_finite_gradients_change_nothing(name: OptimizerName) -> None:
    config, batch = OptimizerConfig(name=name, lr=0.01), make_batch([8, 8])
    model = tiny_model()
    optimizers = build_optimizer(model, config)
    _step(model, optimizers, batch)
    before = [p.detach().clone() for p in model.parameters()]
    state = {key: value.clone() for key, value in optimizers.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    optimizers.step(torch.tensor(1.0))
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new)
    after = optimizers.state_dict()
    assert state.keys() == after.keys()
    for key, value in state.items():
        assert torch.equal(value, after[key]), key


def test_only_matrices_decay() -> None:
    model = tiny_model()
    config = OptimizerConfig(name="adamw", lr=0.5, weight_decay=0.1)
    optimizers = build_optimizer(model, config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step()
    for name, parameter in model.named_parameters():
        shrinks = parameter.ndim == 2 and name != "embed.weight"
        torch.testing.assert_close(parameter.detach(), before[name] * (0.95 if shrinks else 1.0))


def test_lr_factor_scales_every_peak_rate() -> None:
    optimizers = build_optimizer(tiny_model(), OptimizerConfig(lr=0.4, matrix_lr=0.2))
    optimizers.set_lr_factor(0.5)
    optimizers.set_lr_factor(0.25)
    rates = [group["lr"] for part in optimizers.parts for group in part.param_groups]
    assert rates == [0.05, 0.1, 0.1]


def test_state_of_another_model_is_refused() -> None:
    optimizers = build_optimizer(tiny_model(), OptimizerConfig())
    with pytest.raises(CheckpointError, match="does not learn"):
        optimizers.load_state_dict({"elsewhere.weight/exp_avg": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="shape"):
        optimizers.load_state_dict({"norm.weight/exp_avg": torch.zeros(3)})


@pytest.mark.parametrize(
    "bad", [{"lr": 0.0}, {"beta2": 1.0}, {"weight_decay": -1.0}, {"muon_iterations": 0}]
)
def test_impossible_rates_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        OptimizerConfig(**bad)


def _step(model, optimizers, batch) -> float:
    result = train_step(model, optimizers, [batch], NextTokenObjective())
    return float(result.loss_sum / result.count)
