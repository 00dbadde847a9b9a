from __future__ import annotations

import dataclasses
import signal

import pytest
import torch

from tests.align.support import ENGINE, ParityGrader, tiny_config, tiny_model, tokenizer
from weft.align.grpo import run_grpo
from weft.align.grpo_config import GRPOConfig
from weft.align.health import HealthConfig
from weft.align.objective import DAPO, PRESETS
from weft.checkpoint.hf import load_model
from weft.core.config import from_mapping, to_mapping, to_toml
from weft.core.errors import CheckpointError, ConfigError, Interrupted
from weft.core.events import Events
from weft.data.tasks.addition import Addition
from weft.data.tasks.task import sample
from weft.ops.native.bindings import load_library
from weft.spec.sampling import SamplingParams

library = load_library()
EXACT = library is not None and library.wide_registers


class Memory:
    """A sink that keeps events."""

    def __init__(self):
        self.events = []

    def write(self, event):
        self.events.append(dict(event))

    def close(self):
        pass

    def of(self, kind):
        return [event for event in self.events if event["kind"] == kind]


def train(folder, *, model=None, on_step=None, grader=None, **changes):
    memory = Memory()
    model = tiny_model() if model is None else model
    result = run_grpo(
        tiny_config(**changes), model, tokenizer(), folder=folder, events=Events(memory),
        grader=grader or ParityGrader(), on_step=on_step,
    )  # fmt: skip
    return result, memory


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


class Constant(ParityGrader):
    """Gives every answer the same grade."""

    def __init__(self, grade):
        self._grade = grade

    def grade(self, problem, text, finish_reason):
        from weft.align.grade import Grade

        return Grade(self._grade)


def test_run_reports_every_step_and_writes_the_model(tmp_path):
    result, memory = train(tmp_path)
    assert result.steps == result.num_updates == 2
    steps = memory.of("step")
    assert [event["step"] for event in steps] == [1, 2]
    expected = {
        "reward", "entropy", "clip_fraction", "old_kl", "mismatch_max_abs", "mismatch_k3",
        "mismatch_ess", "rollout_s", "train_s", "rollout_tokens_per_s", "num_dropped_groups",
        "loss", "grad_norm", "lr", "weight_version",
    }  # fmt: skip
    assert expected <= steps[0].keys()
    saved = load_model(tmp_path / "model")
    torch.testing.assert_close(weights(saved), weights(result.model), rtol=0, atol=0)


def test_trainer_and_engine_agree_at_every_step(tmp_path):
    result, memory = train(tmp_path, steps=4)
    assert max(event["mismatch_max_abs"] for event in memory.of("step")) <= 1e-5
    assert result.max_mismatch <= 1e-5
    assert all(event["clip_fraction"] == 0 for event in memory.of("step"))


def test_engine_shares_the_trainers_storage_and_its_version_is_bumped(tmp_path, monkeypatch):
    engines = []
    import weft.align.grpo as module

    class Recorded(module.LLM):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            engines.append(self)

    monkeypatch.setattr(module, "LLM", Recorded)
    model = tiny_model()
    before = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    train(tmp_path, model=model)
    (llm,) = engines
    assert {n: p.data_ptr() for n, p in llm.model.named_parameters()} == before
    assert llm.weight_version == 2


@pytest.mark.skipif(not EXACT, reason="no C compiler or no AVX-512: torch attends in training")
def test_deterministic_kernels_leave_no_mismatch_at_all(tmp_path):
    engine = dataclasses.replace(ENGINE, deterministic=True)
    result, memory = train(tmp_path, steps=3, engine=engine)
    for event in memory.of("step"):
        assert (event["mismatch_max_abs"], event["mismatch_k3"]) == (0.0, 0.0)
    assert result.max_mismatch == 0.0


def test_a_cache_that_sleeps_while_training_changes_nothing(tmp_path, monkeypatch):
    asleep = []

    def seen(*arguments, **options):
        asleep.append(engines[-1].core.gate.asleep)
        return train_step(*arguments, **options)

    engines = []
    import weft.align.grpo as module

    class Recorded(module.LLM):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            engines.append(self)

    train_step = module.train_step
    monkeypatch.setattr(module, "LLM", Recorded)
    monkeypatch.setattr(module, "train_step", seen)
    results = [
        train(tmp_path / str(sleeps), free_cache_while_training=sleeps)[0]
        for sleeps in (False, True)
    ]
    assert asleep == [frozenset()] * 2 + [frozenset({"kv_cache"})] * 2
    assert engines[1].core.runner.cache.size_bytes == 0 < engines[0].core.runner.cache.size_bytes
    assert torch.equal(weights(results[0].model), weights(results[1].model))


def test_equal_seeds_give_equal_weights(tmp_path):
    first, _ = train(tmp_path / "a")
    again, _ = train(tmp_path / "b")
    other, _ = train(tmp_path / "c", seed=1)
    assert torch.equal(weights(first.model), weights(again.model))
    assert not torch.equal(weights(first.model), weights(other.model))


def test_questions_do_not_begin_with_the_demonstrations_of_the_same_seed(tmp_path):
    asked = []

    class Recorder(ParityGrader):
        def grade(self, problem, text, finish_reason):
            asked.append(problem.question)
            return super().grade(problem, text, finish_reason)

    train(tmp_path, grader=Recorder(), seed=5)
    shown = {p.question for p in sample(Addition(), "train", count=100, seed=5)}
    assert len(set(asked)) == 6
    assert len(set(asked) & shown) < 3


def test_groups_that_agree_are_counted_and_change_nothing(tmp_path):
    start = weights(tiny_model())
    result, memory = train(tmp_path, grader=Constant("wrong"))
    assert torch.equal(weights(result.model), start)
    assert result.num_updates == 0
    assert [event["num_dropped_groups"] for event in memory.of("step")] == [3, 3]


def test_unscorable_answers_are_counted_and_change_nothing(tmp_path):
    result, memory = train(tmp_path, grader=Constant("unscorable"))
    assert result.num_updates == 0
    assert memory.of("step")[0]["num_unscorable"] == 12


def test_collapse_ends_the_run_with_a_reason_and_stays_ended(tmp_path):
    options = {"grader": Constant("wrong"), "steps": 10, "health": HealthConfig(patience_steps=3)}
    result, memory = train(tmp_path, **options)
    assert result.steps == 3
    assert result.collapsed == "the reward was 0 for 3 steps"
    assert "reward was 0" in memory.of("note")[-1]["text"]
    again, _ = train(tmp_path, **options)
    assert again.steps == 3


def test_several_updates_per_rollout_leave_the_old_policy_behind(tmp_path):
    result, memory = train(tmp_path, updates_per_rollout=3, steps=1)
    (event,) = memory.of("step")
    assert result.num_updates == event["num_updates"] == 3
    assert event["old_kl"] > 0
    assert event["mismatch_max_abs"] <= 1e-5  # measured before the weights moved


def test_reference_kl_is_logged_and_starts_at_zero(tmp_path):
    _, memory = train(tmp_path, kl_coefficient=0.1, steps=3)
    kl = [event["reference_kl"] for event in memory.of("step")]
    assert kl[0] == pytest.approx(0.0, abs=1e-6)
    assert kl[2] > 1e-6


@pytest.mark.parametrize("algorithm", PRESETS)
@pytest.mark.parametrize("correction", ["none", "tis"])
def test_every_algorithm_takes_a_step(tmp_path, algorithm, correction):
    result, _ = train(tmp_path, algorithm=algorithm, correction=correction, steps=1)
    assert result.num_updates == 1
    assert not torch.equal(weights(result.model), weights(tiny_model()))


def test_interrupted_run_continues_to_the_same_weights(tmp_path):
    whole, _ = train(tmp_path / "whole", steps=4)

    def interrupt(step, values):
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        train(tmp_path / "cut", steps=4, on_step=interrupt)
    assert "step 2" in caught.value.message
    assert caught.value.fix
    continued, memory = train(tmp_path / "cut", steps=4)
    assert [event["step"] for event in memory.of("step")] == [3, 4]
    assert torch.equal(weights(continued.model), weights(whole.model))


def test_checkpoint_of_another_model_is_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(CheckpointError, match="another model"):
        train(tmp_path, model=tiny_model(dim=64))


def test_time_budget_ends_the_run(tmp_path):
    result, _ = train(tmp_path, steps=None, minutes=1e-4)
    assert 1 <= result.steps <= 3


def test_run_without_an_end_is_refused():
    with pytest.raises(ConfigError, match="no end"):
        _ = GRPOConfig(steps=None).budget


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"group_size": 1}, "group_size"),
        ({"prompts_per_step": 0}, "prompts_per_step"),
        ({"sampling": SamplingParams()}, "max_tokens"),
        ({"sampling": SamplingParams(max_tokens=4, top_p=0.9)}, "top_p"),
    ],
)
def test_settings_that_cannot_work_name_the_value(changes, word):
    with pytest.raises(ConfigError, match=word):
        GRPOConfig(**changes)


def test_overrides_apply_to_the_preset():
    config = GRPOConfig(algorithm="dapo", kl_coefficient=0.05, correction="tis")
    chosen = config.resolve_objective()
    assert (chosen.loss, chosen.kl_coefficient, chosen.correction) == (DAPO.loss, 0.05, "tis")


def test_config_survives_toml_and_documents_every_field():
    import tomllib

    config = GRPOConfig(algorithm="gspo")
    text = to_toml(config)
    assert from_mapping(GRPOConfig, tomllib.loads(text)) == config
    assert from_mapping(GRPOConfig, to_mapping(config)) == config
    assert "# Answers drawn to each question" in text


def test_unknown_algorithm_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        from_mapping(GRPOConfig, {"algorithm": "grop"})
    assert "grpo" in str(caught.value)
