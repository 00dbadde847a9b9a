from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.align.support import ENGINE, ParityGrader, tiny_model, tokenizer
from weft.align.objective import GRPO, PRESETS, Objective
from weft.align.policy_batch import pack, select
from weft.align.policy_step import PolicyObjective, action_log_probs, frozen_log_probs
from weft.align.rollout import roll_out
from weft.data.tasks.addition import Addition
from weft.data.tasks.task import sample as sample_problems
from weft.engine.llm import LLM
from weft.spec.sampling import SamplingParams
from weft.text.render import Renderer


def scored_samples(model, *, temperature=1.0, count=4, seed=3, kind="group_std"):
    rollout = roll_out(
        LLM(model, tokenizer(), ENGINE),
        Renderer(tokenizer()),
        sample_problems(Addition(), "train", count=count, seed=0),
        ParityGrader(),
        SamplingParams(max_tokens=5, temperature=temperature),
        group_size=6,
        seed=seed,
    )
    return select(rollout.groups, kind).samples


def gradients(model, batches, objective):
    """Return the gradient of sum / count, as the trainer forms it."""
    model.zero_grad()
    count = 0.0
    for batch in batches:
        loss = objective(model, batch)
        loss.loss_sum.backward()
        count += float(loss.count)
    return {name: p.grad / count for name, p in model.named_parameters()}


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.5])
def test_trainer_log_probs_of_sampled_tokens_equal_the_engines(temperature):
    model = tiny_model()
    for batch in pack(scored_samples(model, temperature=temperature), 200):
        trainer_M = action_log_probs(model, batch, temperature=temperature).detach().numpy()
        np.testing.assert_allclose(trainer_M, batch.behaviour_M, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_gradient_does_not_depend_on_the_micro_batch_split(name):
    model, preset = tiny_model(), PRESETS[name]
    samples = scored_samples(model, kind=preset.advantage)
    objective = PolicyObjective(preset, temperature=1.0, max_new_tokens=5)
    whole = gradients(model, pack(samples, 10**6), objective)
    assert any(gradient.abs().max() > 1e-4 for gradient in whole.values())
    for max_tokens in (40, 1):
        split = gradients(model, pack(samples, max_tokens), objective)
        for key, gradient in whole.items():
            torch.testing.assert_close(split[key], gradient, rtol=1e-4, atol=1e-6)


def test_gradient_does_not_depend_on_the_order_of_samples():
    model = tiny_model()
    samples = scored_samples(model)
    objective = PolicyObjective(GRPO, temperature=1.0, max_new_tokens=5)
    forward = gradients(model, pack(samples, 10**6), objective)
    backward = gradients(model, pack(samples[::-1], 10**6), objective)
    for key, gradient in forward.items():
        torch.testing.assert_close(backward[key], gradient, rtol=1e-4, atol=1e-6)


def test_step_zero_is_on_policy():
    model = tiny_model()
    objective = PolicyObjective(GRPO, temperature=1.0, max_new_tokens=5)
    for batch in pack(scored_samples(model), 10**6):
        stats = objective(model, batch).stats
        assert float(stats["num_clipped"]) == 0
        assert float(stats["old_kl_sum"]) / float(stats["num_actions"]) < 1e-9


def test_kl_to_an_equal_reference_is_zero_and_grows_when_the_policy_moves():
    model, reference = tiny_model(), tiny_model()
    choices = PolicyObjective(Objective(kl_coefficient=1.0), temperature=1.0, max_new_tokens=5)
    (batch,) = pack(scored_samples(model), 10**6)
    (reference_M,) = frozen_log_probs(reference, [batch], temperature=1.0)
    batch = batch.with_log_probs(reference_M=reference_M)
    assert float(choices(model, batch).stats["reference_kl_sum"]) == 0.0
    with torch.no_grad():
        model.layers[0].ffn.down.weight.add_(0.5)
    assert float(choices(model, batch).stats["reference_kl_sum"]) > 0.01


def test_kl_term_adds_its_coefficient_times_the_divergence():
    model = tiny_model()
    (batch,) = pack(scored_samples(model), 10**6)
    (reference_M,) = frozen_log_probs(tiny_model(seed=1), [batch], temperature=1.0)
    batch = batch.with_log_probs(reference_M=reference_M)
    losses = {}
    for coefficient in (0.0, 0.5):
        choices = Objective(kl_coefficient=coefficient)
        objective = PolicyObjective(choices, temperature=1.0, max_new_tokens=5)
        losses[coefficient] = objective(model, batch)
    added = losses[0.5].loss_sum - losses[0.0].loss_sum
    expected = 0.5 * losses[0.5].stats["reference_kl_sum"]
    torch.testing.assert_close(added.detach(), expected)


def test_step_raises_good_answers_and_lowers_bad_ones():
    model = tiny_model()
    (batch,) = pack(scored_samples(model), 10**6)
    objective = PolicyObjective(GRPO, temperature=1.0, max_new_tokens=5)
    for name, gradient in gradients(model, [batch], objective).items():
        with torch.no_grad():
            model.get_parameter(name).sub_(gradient, alpha=0.05)
    moved_M = action_log_probs(model, batch, temperature=1.0).detach().numpy() - batch.behaviour_M
    assert (moved_M * batch.advantages_M).mean() > 0


@pytest.mark.parametrize("correction", ["tis", "mis"])
def test_correction_changes_nothing_while_both_sides_agree(correction):
    model = tiny_model()
    (batch,) = pack(scored_samples(model), 10**6)
    (old_M,) = frozen_log_probs(model, [batch], temperature=1.0)
    plain = PolicyObjective(GRPO, temperature=1.0, max_new_tokens=5)(model, batch)
    corrected = PolicyObjective(
        Objective(loss=GRPO.loss, correction=correction), temperature=1.0, max_new_tokens=5
    )(model, batch.with_log_probs(old_M=old_M))
    torch.testing.assert_close(corrected.loss_sum, plain.loss_sum, rtol=1e-4, atol=1e-5)


def test_correction_weighs_tokens_the_sampler_drew_too_often():
    model = tiny_model()
    (batch,) = pack(scored_samples(model), 10**6)
    (old_M,) = frozen_log_probs(model, [batch], temperature=1.0)
    # As if the sampler had given every token eight times its probability.
    wrong = replace(batch, behaviour_M=old_M + np.log(8.0).astype(np.float32), old_M=old_M)
    choices = Objective(loss=GRPO.loss, correction="mis")
    loss = PolicyObjective(choices, temperature=1.0, max_new_tokens=5)(model, wrong)
    assert loss.loss_sum.item() == 0.0  # 1/8 is outside the band
