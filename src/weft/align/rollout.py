"""Groups of samples drawn by the engine from the tensors that are being trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from weft.align.grade import Grader
from weft.align.types import Group, Sample
from weft.core.errors import ConfigError
from weft.data.permutation import derive_seed
from weft.data.tasks.task import Problem, prompt
from weft.engine.llm import LLM
from weft.engine.outputs import Completion
from weft.spec.sampling import SamplingParams
from weft.text.render import Renderer

MAX_SEED = 2**63


def check_sampling(sampling: SamplingParams) -> None:
    """Refuse sampling whose log-probabilities the trainer would not reproduce.

    The policy gradient weighs tokens by the ratio of the trainer's probability to the one they
    were drawn with. Truncation and penalties change the latter in ways that the trainer's softmax
    does not know, which biases the ratio; temperature is the same division on both sides.

    Raises:
        ConfigError: greedy sampling, top-p, top-k, min-p, penalties, min_tokens, a structure or a
            seed.
    """
    if sampling.greedy:
        raise ConfigError(
            "temperature is 0; equal samples have no advantage over each other",
            fix="set sampling.temperature above 0, such as 1.0",
        )
    if sampling.changes_distribution:
        wrong = ", ".join(f"{name}={value}" for name, value in _shaping(sampling).items())
        raise ConfigError(
            f"sampling has {wrong}; the trainer cannot reproduce these log-probabilities",
            fix="leave them out; reinforcement learning samples by temperature only",
        )
    if sampling.seed is not None:
        raise ConfigError(
            f"sampling.seed is {sampling.seed}; every step would draw the same samples",
            fix="leave it out; each prompt's seed follows from the run's seed and the step",
        )


def _shaping(sampling: SamplingParams) -> dict[str, object]:
    neutral = SamplingParams()
    names = (
        "top_k", "top_p", "min_p", "typical_p", "presence_penalty", "frequency_penalty",
        "repetition_penalty", "min_tokens", "logit_bias", "allowed_token_ids", "bad_words",
        "structured",
    )  # fmt: skip
    values = {name: getattr(sampling, name) for name in names}
    return {name: value for name, value in values.items() if value != getattr(neutral, name)}


@dataclass(frozen=True)
class Rollout:
    """The groups of one step and what it took.

    Attributes:
        groups: One per problem, in order.
        num_unscorable: Samples the grader could not judge.
        num_cached_tokens: Prompt tokens found in the prefix cache.
        example: Question and text of the first sample, for the log.
    """

    groups: tuple[Group, ...]
    num_unscorable: int
    num_cached_tokens: int
    example: tuple[str, str]

    @property
    def samples(self) -> list[Sample]:
        """All samples, group after group."""
        return [sample for group in self.groups for sample in group.samples]


def roll_out(
    llm: LLM,
    renderer: Renderer,
    problems: Sequence[Problem],
    grader: Grader,
    sampling: SamplingParams,
    *,
    group_size: int,
    seed: int,
) -> Rollout:
    """Draw and grade ``group_size`` answers to each problem.

    The same seed draws the same tokens, however many run beside each other: every prompt has a
    seed of its own, and the engine counts the samples of a prompt.

    Args:
        llm: Bound to the module that is trained.
        renderer: Turns questions into prompt tokens.
        problems: What to ask.
        grader: Judges the answers.
        sampling: See ``check_sampling``.
        group_size: Samples per problem.
        seed: Of this step.
    """
    prompts = [
        renderer.render(prompt(problem), add_generation_prompt=True).tokens for problem in problems
    ]
    params = [
        replace(sampling, seed=derive_seed(seed, "prompt", index) % MAX_SEED)
        for index in range(len(problems))
    ]
    completions = llm.generate(prompts, params, num_samples=group_size)
    groups = tuple(
        _group(problem, completions[i * group_size : (i + 1) * group_size], grader)
        for i, problem in enumerate(problems)
    )
    return Rollout(
        groups=groups,
        num_unscorable=sum(s.reward is None for group in groups for s in group.samples),
        num_cached_tokens=sum(completion.num_cached_tokens for completion in completions),
        example=(problems[0].question, completions[0].text),
    )


def _group(problem: Problem, completions: Sequence[Completion], grader: Grader) -> Group:
    return Group(problem, tuple(_sample(problem, c, grader) for c in completions))


def _sample(problem: Problem, completion: Completion, grader: Grader) -> Sample:
    grade = grader.grade(problem, completion.text, completion.finish_reason)
    return Sample.from_completion(
        completion.prompt,
        completion.tokens,
        completion.logprobs,
        weight_versions=completion.weight_versions,
        finish_reason=completion.finish_reason,
        reward=grade.reward,
    )
