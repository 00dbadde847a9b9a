"""What is rewarded becomes likelier, and what is not rewarded does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.align.support import ENGINE, tiny_config, tiny_model, tokenizer
from weft.align.grade import Grade, TaskGrader
from weft.align.grpo import run_grpo
from weft.core.events import Events
from weft.data.tasks.addition import Addition
from weft.data.tasks.task import demonstration, prompt, sample
from weft.engine.llm import LLM
from weft.spec.sampling import SamplingParams
from weft.text.render import Renderer
from weft.train.optim import OptimizerConfig
from weft.train.schedule import ScheduleConfig
from weft.train.sft import SFTConfig, run_sft


class ShortAnswers:
    """Likes answers of fewer than five characters; remembers how many it liked."""

    def __init__(self):
        self.liked = []

    def grade(self, problem, text, finish_reason):
        self.liked.append(len(text) < 5)
        return Grade.CORRECT if self.liked[-1] else Grade.WRONG


class Shuffled:
    """Gives each answer the reward of another one, drawn from the last two hundred."""

    def __init__(self, grader, seed=0):
        self.grader, self._generator = grader, np.random.default_rng(seed)
        self._rewards = [Grade.WRONG, Grade.CORRECT] * 100

    def grade(self, problem, text, finish_reason):
        self._rewards.append(self.grader.grade(problem, text, finish_reason))
        index = int(self._generator.integers(len(self._rewards)))
        return self._rewards.pop(index)


def train(folder, grader, **changes):
    config = tiny_config(
        steps=25, prompts_per_step=8, group_size=8,
        optimizer=OptimizerConfig(name="adamw", lr=3e-3, weight_decay=0.0), **changes,
    )  # fmt: skip
    return run_grpo(
        config, tiny_model(), tokenizer(), folder=folder, events=Events(), grader=grader
    )


def shares(grader):
    """Return the share of liked answers in the first and in the last five rollouts."""
    liked = np.array(grader.liked, dtype=float).reshape(25, -1)
    return liked[:5].mean(), liked[-5:].mean()


@pytest.mark.parametrize("algorithm", ["grpo", "reinforce"])
def test_policy_learns_what_is_rewarded(tmp_path, algorithm):
    grader = ShortAnswers()
    result = train(tmp_path, grader, algorithm=algorithm)
    first, last = shares(grader)
    assert last > first + 0.2
    assert last > 0.8
    assert result.collapsed is None


def test_shuffled_rewards_teach_nothing(tmp_path):
    grader = ShortAnswers()
    train(tmp_path, Shuffled(grader))
    first, last = shares(grader)
    assert last < first + 0.1


TASK = Addition(max_operand=29)
EXAM = sample(TASK, "test", count=150)
# Enough to know the format and some sums; 150 steps would solve the task.
SFT_STEPS = 90


def exam(model):
    """Return the share of held-out additions that greedy decoding gets right."""
    renderer = Renderer(tokenizer())
    prompts = [renderer.render(prompt(p), add_generation_prompt=True).tokens for p in EXAM]
    sampling = SamplingParams(max_tokens=4, temperature=0.0)
    engine = dataclasses.replace(ENGINE, kv_tokens=16_384)
    completions = LLM(model, tokenizer(), engine).generate(prompts, sampling)
    return np.mean([TASK.grade(p, c.text) for p, c in zip(EXAM, completions, strict=True)])


def half_taught(folder):
    """Return a model whose fine-tuning on additions was stopped before it was done."""
    model = tiny_model(dim=128, num_heads=4, num_kv_heads=2)
    renderer = Renderer(tokenizer())
    lessons = [renderer.render(demonstration(p)) for p in sample(TASK, "train", count=600)]
    config = SFTConfig(
        steps=SFT_STEPS, epochs=None, sequence_length=64, tokens_per_step=2048, precision="fp32",
        checkpoint_interval_s=None, sample_interval_s=None,
        optimizer=OptimizerConfig(lr=5e-3, weight_decay=0.0),
    )  # fmt: skip
    run_sft(config, model, lessons, folder=folder / "sft", events=Events(), tokenizer=tokenizer())
    return model


def reinforce(folder, model, grader=None):
    config = tiny_config(
        steps=60, prompts_per_step=48, group_size=8,
        optimizer=OptimizerConfig(lr=3e-4, matrix_lr=1e-3, weight_decay=0.0),
        schedule=ScheduleConfig(kind="linear", warmup_steps=3),
        engine=dataclasses.replace(ENGINE, kv_tokens=16_384, max_num_sequences=512),
    )  # fmt: skip
    run_grpo(config, model, tokenizer(), folder=folder, events=Events(), task=TASK, grader=grader)
    return exam(model)


@pytest.mark.slow
def test_grpo_raises_held_out_exact_match_beyond_the_interval(tmp_path):
    model = half_taught(tmp_path)
    before = exam(model)
    after = reinforce(tmp_path / "grpo", model)
    # Half the width of a 95 % interval of 150 questions is at most 0.08.
    assert after > before + 0.12


@pytest.mark.slow
def test_shuffled_rewards_do_not_raise_held_out_exact_match(tmp_path):
    model = half_taught(tmp_path)
    before = exam(model)
    after = reinforce(tmp_path / "grpo", model, Shuffled(TaskGrader(TASK)))
    assert after <= before + 0.03
