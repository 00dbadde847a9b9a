"""Multi-token prediction modules are trained with the model that has them."""

from __future__ import annotations

import dataclasses

import torch

from tests.train.helpers import CountingSource, make_batch, tiny_model
from weft.data.batch import concatenate
from weft.models.decoder import Decoder
from weft.train.objective import NextTokenObjective
from weft.train.optim import OptimizerConfig, build_optimizer
from weft.train.step import train_step


def with_modules(num_modules: int) -> Decoder:
    return Decoder(dataclasses.replace(tiny_model().spec, num_mtp_layers=num_modules), seed=0)


def test_modules_join_the_loss_with_a_weight_and_stay_out_of_what_is_reported() -> None:
    model, batch = with_modules(2), make_batch([9, 5])
    single = NextTokenObjective(mtp_weight=1.0)(model, batch)
    half = NextTokenObjective(mtp_weight=0.5)(model, batch)
    assert single.penalty_sum is not None
    assert half.penalty_sum is not None
    torch.testing.assert_close(half.penalty_sum * 2, single.penalty_sum)
    torch.testing.assert_close(half.minimised, single.loss_sum + half.penalty_sum)
    torch.testing.assert_close(half.stats["mtp_loss"], half.penalty_sum)


def test_penalty_does_not_depend_on_how_a_batch_is_cut() -> None:
    model, objective = with_modules(2), NextTokenObjective()
    batches = [make_batch([9, 5], seed=1), make_batch([7], seed=2)]
    whole = objective(model, concatenate(batches)).penalty_sum
    parts = [objective(model, batch).penalty_sum for batch in batches]
    torch.testing.assert_close(whole, torch.stack(parts).sum())


def test_modules_rest_in_evaluation() -> None:
    model = with_modules(1).eval()
    assert NextTokenObjective()(model, make_batch([9])).penalty_sum is None


def test_modules_learn_what_comes_after_the_next_token() -> None:
    model, objective, source = with_modules(1), NextTokenObjective(), CountingSource()
    optimizers = build_optimizer(model, OptimizerConfig(lr=0.01))
    losses = []
    for index in range(60):
        result = train_step(model, optimizers, [source.batch(index)], objective)
        losses.append(float(result.stats["mtp_loss"]))
    assert losses[-1] < losses[0] / 2
