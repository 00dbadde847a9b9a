from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.train.helpers import CountingSource, tiny_model
from weft.train.muon import SINGULAR_VALUE_BAND, Muon, newton_schulz, step_scale
from weft.train.objective import NextTokenObjective
from weft.train.optim import OptimizerConfig, build_optimizer
from weft.train.parameters import merged_rows
from weft.train.schedule import ScheduleConfig
from weft.train.step import train_step


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 40, 16), (2, 16, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_land_in_the_band(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x_BMN = torch.randn(shape)
    result = newton_schulz(x_BMN, dtype=dtype).float()
    values = torch.linalg.svdvals(result)
    wanted = torch.linalg.svdvals(x_BMN) / torch.linalg.matrix_norm(x_BMN)[:, None] > 0.01
    low, high = SINGULAR_VALUE_BAND
    assert values[wanted].min() > low
    assert values.max() < high


def test_singular_vectors_are_kept() -> None:
    torch.manual_seed(0)
    x_MN = torch.randn(12, 20)
    u, _, vh = torch.linalg.svd(x_MN, full_matrices=False)
    core = u.T @ newton_schulz(x_MN[None])[0] @ vh.T
    torch.testing.assert_close(core, torch.diag(core.diagonal()), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(16, 16), (40, 16), (16, 40)])
def test_one_step_follows_the_rule_of_torch(shape: tuple[int, int]) -> None:
    """torch's Muon iterates in bfloat16 and sums momentum unnormalised: equal up to that."""
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), [torch.randn(shape) for _ in range(3)]
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    rates = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}
    our_muon = Muon({"w": ours}, dtype=torch.bfloat16, **rates)
    torch_muon = torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **rates)
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        our_muon.step()
        torch_muon.step()
    change = (theirs - start).detach()
    assert ((ours - theirs).detach().norm() / change.norm()) < 0.02


def test_update_has_the_size_of_an_adamw_step() -> None:
    """The root mean square of an update is about 0.2 lr, whatever the shape."""
    torch.manual_seed(0)
    for shape in ((32, 32), (96, 32), (32, 96)):
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = torch.randn(shape)
        Muon({"w": weight}, lr=1.0).step()
        assert 0.14 < weight.detach().square().mean().sqrt() < 0.23
    assert step_scale(64, 16) == pytest.approx(0.2 * 8)


def test_stack_of_matrices_is_updated_like_each_alone() -> None:
    torch.manual_seed(0)
    start_EMN, gradient_EMN = torch.randn(3, 8, 12), torch.randn(3, 8, 12)
    stack = nn.Parameter(start_EMN.clone())
    stack.grad = gradient_EMN.clone()
    alone = [nn.Parameter(start.clone()) for start in start_EMN]
    for parameter, gradient in zip(alone, gradient_EMN, strict=True):
        parameter.grad = gradient.clone()
    Muon({"experts": stack}, lr=0.1).step()
    Muon({f"w{i}": parameter for i, parameter in enumerate(alone)}, lr=0.1).step()
    torch.testing.assert_close(stack.detach(), torch.stack([p.detach() for p in alone]))


def test_parts_of_a_merged_matrix_are_orthogonalised_apart() -> None:
    torch.manual_seed(0)
    start, gradient = torch.randn(20, 8), torch.randn(20, 8)
    merged = nn.Parameter(start.clone())
    merged.grad = gradient.clone()
    Muon({"qkv": merged}, lr=0.1, merged_rows={"qkv": (8, 6, 6)}).step()
    parts = [nn.Parameter(part.clone()) for part in start.split((8, 6, 6))]
    for part, rows in zip(parts, gradient.split((8, 6, 6)), strict=True):
        part.grad = rows.clone()
    Muon({f"p{i}": part for i, part in enumerate(parts)}, lr=0.1).step()
    torch.testing.assert_close(merged.detach(), torch.cat([p.detach() for p in parts]))


def test_a_decoder_names_its_merged_matrices() -> None:
    rows = merged_rows(tiny_model())
    assert rows["layers.0.mixer.qkv.weight"] == (16, 8, 8)
    assert rows["layers.1.ffn.gate_up.weight"] == (32, 32)


def test_parameters_without_a_gradient_rest() -> None:
    active, idle = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    active.grad = torch.eye(4)
    Muon({"a": active, "b": idle}, lr=0.1, weight_decay=0.5).step()
    assert torch.equal(idle.detach(), torch.ones(4, 4))
    assert not torch.equal(active.detach(), torch.ones(4, 4))


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="bias is 1-D"):
        Muon({"bias": nn.Parameter(torch.zeros(4))}, lr=0.1)
    with pytest.raises(ValueError, match="parts of w"):
        Muon({"w": nn.Parameter(torch.zeros(4, 4))}, lr=0.1, merged_rows={"w": (3, 3)})


@pytest.mark.slow
def test_muon_beats_adamw_on_a_fixed_budget() -> None:
    """Lower mean loss over the last steps, each with the best of three learning rates."""
    best = {
        name: min(_toy_loss(name, lr) for lr in (3e-3, 1e-2, 3e-2))
        for name in ("muon_adamw", "adamw")
    }
    assert best["muon_adamw"] < best["adamw"]


def _toy_loss(name: str, lr: float, steps: int = 150) -> float:
    model = tiny_model(dim=64, num_layers=3, num_heads=4, num_kv_heads=4, ffn_dim=128)
    config = OptimizerConfig(name=name, lr=lr, weight_decay=0.0)  # type: ignore[arg-type]
    optimizers = build_optimizer(model, config)
    source, schedule = _RecallSource(), ScheduleConfig(warmup_steps=10, decay_fraction=0.3)
    losses = []
    for step in range(steps):
        optimizers.set_lr_factor(schedule.factor(step, steps))
        result = train_step(model, optimizers, [source.batch(step)], NextTokenObjective())
        losses.append(float(result.loss_sum / result.count))
    assert not math.isnan(losses[-1])
    return sum(losses[-20:]) / 20


class _RecallSource(CountingSource):
    """Counting with a stride that each document shows first: it has to be looked up."""

    def batch(self, index: int):
        import numpy as np

        from weft.data.batch import IGNORE, Batch

        rng = np.random.default_rng(index)
        documents, labels = [], []
        for _ in range(16):
            start, stride = rng.integers(0, 32), rng.integers(1, 12)
            document = (start + stride * np.arange(12)) % 32
            documents.append(document)
            labels.append(np.append(document[1:], IGNORE))
        return Batch(np.concatenate(documents), np.concatenate(labels), (12,) * 16)
