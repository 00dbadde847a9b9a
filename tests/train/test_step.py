from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.train.helpers import make_batch, tiny_model
from weft.data.batch import IGNORE, Batch, concatenate
from weft.train.clip import scale_and_clip
from weft.train.objective import LossSum, NextTokenObjective
from weft.train.optim import OptimizerConfig, build_optimizer
from weft.train.precision import LossScaler
from weft.train.step import train_step

OBJECTIVE = NextTokenObjective()


@pytest.mark.parametrize("lengths", [[5, 9, 3, 12], [1, 1, 7]])
def test_packed_loss_and_gradients_equal_unpacked(lengths: list[int]) -> None:
    """Row T14: documents in one sequence learn exactly as each alone."""
    batch = make_batch(lengths)
    packed, packed_gradients = _gradients([batch])
    alone, alone_gradients = _gradients(_documents(batch))
    torch.testing.assert_close(packed, alone)
    for ours, theirs in zip(packed_gradients, alone_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=2, max_size=6), st.data())
def test_step_does_not_depend_on_how_micro_batches_are_cut(lengths, data) -> None:
    documents = _documents(make_batch([*lengths, 4]))
    cut = data.draw(st.integers(1, len(documents) - 1))
    whole = _after_step([concatenate(documents)])
    in_two = _after_step([concatenate(documents[:cut]), concatenate(documents[cut:])])
    for ours, theirs in zip(whole, in_two, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-4)


def test_loss_is_divided_by_all_valid_tokens() -> None:
    model = tiny_model()
    batches = [make_batch([3]), make_batch([13])]
    optimizers = build_optimizer(model, OptimizerConfig(name="sgd", lr=1e-9))
    result = train_step(model, optimizers, batches, OBJECTIVE)
    sums = [OBJECTIVE(model, batch) for batch in batches]
    assert int(result.count) == 2 + 12
    torch.testing.assert_close(
        result.loss_sum, (sums[0].loss_sum + sums[1].loss_sum).detach(), atol=1e-4, rtol=1e-5
    )


def test_step_with_a_nan_changes_nothing_and_is_counted() -> None:
    model = tiny_model()
    optimizers = build_optimizer(model, OptimizerConfig(lr=0.1))
    before = [p.detach().clone() for p in model.parameters()]

    def poisoned(model, batch) -> LossSum:
        loss_sum, count = OBJECTIVE(model, batch)[:2]
        return LossSum(loss_sum * float("nan"), count)

    result = train_step(model, optimizers, [make_batch([8])], poisoned)
    assert result.skipped == 1
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new)
    result = train_step(model, optimizers, [make_batch([8])], OBJECTIVE)
    assert result.skipped == 0
    assert not torch.equal(before[0], next(model.parameters()))


def test_batch_without_any_target_is_skipped() -> None:
    model = tiny_model()
    optimizers = build_optimizer(model, OptimizerConfig(lr=0.1))
    batch = make_batch([4])
    empty = Batch(batch.tokens_T, np.full(4, IGNORE), (4,))
    assert train_step(model, optimizers, [empty], OBJECTIVE).skipped == 1


def test_stats_of_the_objective_are_added_up() -> None:
    model = tiny_model()

    def with_stats(model, batch) -> LossSum:
        loss_sum, count = OBJECTIVE(model, batch)[:2]
        return LossSum(loss_sum, count, {"tokens": torch.tensor(float(len(batch)))})

    optimizers = build_optimizer(model, OptimizerConfig())
    result = train_step(model, optimizers, [make_batch([3]), make_batch([5])], with_stats)
    assert result.stats["tokens"] == 8


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.integers(0, 5))
def test_clipping_limits_the_global_norm(max_norm: float, divisor: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    originals = [torch.randn(shape, generator=generator) for shape in ((3, 4), (5,))]
    gradients = [g.clone() for g in originals]
    norm, found_inf = scale_and_clip(gradients, divisor=divisor, max_norm=max_norm)
    wanted = torch.cat([g.flatten() for g in originals]).norm() / divisor
    torch.testing.assert_close(norm, wanted)
    assert found_inf == 0
    after = torch.cat([g.flatten() for g in gradients]).norm()
    torch.testing.assert_close(after, wanted.clamp(max=max_norm), rtol=1e-3, atol=1e-6)


def test_unclipped_gradients_are_only_divided() -> None:
    gradient = torch.tensor([30.0, 40.0])
    norm, _ = scale_and_clip([gradient], divisor=10.0, max_norm=None)
    assert norm == 5
    assert gradient.tolist() == [3.0, 4.0]


def test_float16_step_backs_off_on_overflow_and_then_learns() -> None:
    model, batch = tiny_model(), make_batch([16])
    optimizers = build_optimizer(model, OptimizerConfig(name="adamw", lr=0.01))
    scaler = LossScaler(scale=2.0**40)
    losses, skipped = [], 0
    for _ in range(40):
        result = train_step(model, optimizers, [batch], OBJECTIVE, precision="fp16", scaler=scaler)
        skipped += int(result.skipped)
        losses.append(float(result.loss_sum / result.count))
    assert skipped > 5
    assert scaler.scale == 2.0 ** (40 - skipped)
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_few_pairs_are_learnt_exactly(precision: str) -> None:
    """Row U01: a tiny model answers every prompt it was shown exactly."""
    rng = np.random.default_rng(0)
    prompts, answers = rng.permutation(32)[:24].reshape(12, 2), rng.integers(0, 32, (12, 3))
    documents = [_pair(*pair) for pair in zip(prompts, answers, strict=True)]
    model = tiny_model(dim=32, ffn_dim=64)
    optimizers = build_optimizer(model, OptimizerConfig(lr=0.02, weight_decay=0.0))
    batch = concatenate(documents)
    for _ in range(60):
        train_step(model, optimizers, [batch], OBJECTIVE, precision=precision)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert _greedy(model, prompt.tolist(), 3) == answer.tolist()


def _pair(prompt: np.ndarray, answer: np.ndarray) -> Batch:
    tokens_T = np.concatenate([prompt, answer])
    labels_T = np.append(tokens_T[1:], IGNORE)
    labels_T[: len(prompt) - 1] = IGNORE
    return Batch(tokens_T, labels_T, (len(tokens_T),))


@torch.no_grad()
def _greedy(model, tokens: list[int], num_new: int) -> list[int]:
    from weft.models.heads import logits
    from weft.nn.context import StepContext

    for _ in range(num_new):
        hidden_TD = model(torch.tensor(tokens), StepContext.packed([len(tokens)]))
        tokens = [*tokens, int(logits(model, hidden_TD)[-1].argmax())]
    return tokens[-num_new:]


def _documents(batch: Batch) -> list[Batch]:
    stops = np.cumsum(batch.lengths)
    return [
        Batch(batch.tokens_T[stop - n : stop], batch.labels_T[stop - n : stop], (n,))
        for n, stop in zip(batch.lengths, stops, strict=True)
    ]


def _gradients(batches: list[Batch]) -> tuple[Tensor, list[Tensor]]:
    model = tiny_model()
    total = torch.zeros(())
    for batch in batches:
        total = total + OBJECTIVE(model, batch).loss_sum
    total.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) == len(list(model.parameters()))
    return total.detach(), gradients


def _after_step(batches: list[Batch]) -> list[Tensor]:
    model = tiny_model()
    optimizers = build_optimizer(model, OptimizerConfig(name="sgd", lr=0.5))
    train_step(model, optimizers, batches, OBJECTIVE)
    return [p.detach() for p in model.parameters()]
