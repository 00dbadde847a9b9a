from __future__ import annotations

import numpy as np
import pytest

from tests.align.support import ENGINE, ParityGrader, tiny_model, tokenizer
from weft.align.rollout import check_sampling, roll_out
from weft.core.errors import ConfigError
from weft.data.tasks.addition import Addition
from weft.data.tasks.task import sample as sample_problems
from weft.engine.llm import LLM
from weft.spec.sampling import SamplingParams
from weft.spec.structured import Regex
from weft.text.render import Renderer


def draw(llm, *, seed=7, count=3, group_size=4, temperature=1.0, skip=0):
    problems = sample_problems(Addition(), "train", count=count, seed=0)[skip:]
    sampling = SamplingParams(max_tokens=5, temperature=temperature)
    renderer = Renderer(tokenizer())
    return roll_out(
        llm, renderer, problems, ParityGrader(), sampling, group_size=group_size, seed=seed
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"presence_penalty": 0.5},
        {"frequency_penalty": 0.5}, {"repetition_penalty": 1.1}, {"min_tokens": 1},
        {"temperature": 0.0}, {"seed": 1}, {"structured": Regex("a")},
    ],
)  # fmt: skip
def test_sampling_the_trainer_cannot_reproduce_is_refused(changes):
    with pytest.raises(ConfigError) as caught:
        check_sampling(SamplingParams(max_tokens=4, **changes))
    assert next(iter(changes)) in caught.value.message
    assert caught.value.fix


def test_temperature_alone_is_accepted():
    check_sampling(SamplingParams(max_tokens=4, temperature=0.7))


def test_groups_hold_their_prompt_and_differ_inside():
    rollout = draw(LLM(tiny_model(), tokenizer(), ENGINE))
    assert [len(group.samples) for group in rollout.groups] == [4, 4, 4]
    for group in rollout.groups:
        prompts = {s.tokens[: s.loss_mask.index(True)] for s in group.samples}
        assert len(prompts) == 1
        assert len({s.tokens for s in group.samples}) > 1


def test_same_seed_draws_the_same_tokens_and_another_seed_others():
    first = draw(LLM(tiny_model(), tokenizer(), ENGINE))
    again = draw(LLM(tiny_model(), tokenizer(), ENGINE))
    other = draw(LLM(tiny_model(), tokenizer(), ENGINE), seed=8)
    tokens = [[s.tokens for s in rollout.samples] for rollout in (first, again, other)]
    assert tokens[0] == tokens[1] != tokens[2]


def test_siblings_share_the_prompt_in_the_prefix_cache():
    llm = LLM(tiny_model(), tokenizer(), ENGINE)
    draw(llm)
    # A second rollout of the same questions finds their full blocks.
    assert draw(llm, seed=8).num_cached_tokens > 0


def test_weight_version_is_recorded_and_a_bump_invalidates_the_prefix_cache():
    llm = LLM(tiny_model(), tokenizer(), ENGINE)
    before = draw(llm, group_size=1)
    cached = draw(llm, group_size=1, seed=8)
    llm.bump_weight_version()
    after = draw(llm, group_size=1, seed=9)
    assert cached.num_cached_tokens > 0
    assert after.num_cached_tokens == 0
    versions = [{v for s in r.samples for v in s.weight_versions} - {-1} for r in (before, after)]
    assert versions == [{0}, {1}]


def test_unfinished_answers_are_counted_as_unscorable():
    class Undecided(ParityGrader):
        def grade(self, problem, text, finish_reason):
            from weft.align.grade import Grade

            return Grade.UNSCORABLE

    llm = LLM(tiny_model(), tokenizer(), ENGINE)
    problems = sample_problems(Addition(), "train", count=1)
    rollout = roll_out(
        llm, Renderer(tokenizer()), problems, Undecided(), SamplingParams(max_tokens=2),
        group_size=2, seed=0,
    )  # fmt: skip
    assert rollout.num_unscorable == 2
    assert rollout.groups[0].rewards == []


def test_recorded_log_probs_are_finite_and_not_positive():
    rollout = draw(LLM(tiny_model(), tokenizer(), ENGINE))
    values = np.concatenate([s.behaviour_log_probs for s in rollout.samples])
    assert np.isfinite(values).all()
    assert (values <= 0).all()
