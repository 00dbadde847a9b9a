"""Share of problems whose greedy answer is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from weft.data.tasks.task import Problem, Task, prompt
from weft.engine.llm import LLM
from weft.evals.interval import Interval, wilson
from weft.evals.requests import Generate
from weft.spec.sampling import SamplingParams
from weft.text.render import Renderer
from weft.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Answer:
    """One generated answer.

    Attributes:
        problem: What was asked.
        text: What the model said.
        correct: The task's verdict.
        finish_reason: Why the generation ended.
    """

    problem: Problem
    text: str
    correct: bool
    finish_reason: str


@dataclass(frozen=True)
class ExactMatch:
    """The result on a set of problems.

    Attributes:
        num_correct: Right answers.
        n: Problems.
        interval: 95 % Wilson interval of the share.
        finish_reasons: How often generations ended in which way; "length" means cut off.
        answers: Every answer.
        first_prompt: The first prompt as tokens.
    """

    num_correct: int
    n: int
    interval: Interval
    finish_reasons: dict[str, int]
    answers: tuple[Answer, ...] = field(repr=False)
    first_prompt: tuple[int, ...] = ()

    @property
    def score(self) -> float:
        """Share of right answers."""
        return self.num_correct / self.n if self.n else 0.0


def exact_match(
    llm: LLM, task: Task, problems: Sequence[Problem], *, max_tokens: int = 32
) -> ExactMatch:
    """Ask every problem by greedy decoding and let the task judge the answers.

    Args:
        llm: The engine; its tokenizer has a chat template.
        task: The judge.
        problems: What to ask.
        max_tokens: Most tokens of an answer.
    """
    requests = chat_requests(llm.tokenizer, problems, max_tokens=max_tokens)
    return judge(llm, requests, problems, task.grade)


def chat_requests(
    tokenizer: Tokenizer, problems: Sequence[Problem], *, max_tokens: int
) -> list[Generate]:
    """Return the problems as user messages in the model's chat template."""
    renderer = Renderer(tokenizer)
    return [
        Generate(renderer.render(prompt(problem), add_generation_prompt=True).tokens, max_tokens)
        for problem in problems
    ]


def judge(
    llm: LLM,
    requests: Sequence[Generate],
    problems: Sequence[Problem],
    grade: Callable[[Problem, str], bool],
) -> ExactMatch:
    """Generate greedily and grade; answer i belongs to problem i."""
    sampling = [
        SamplingParams(max_tokens=request.max_tokens, temperature=0.0) for request in requests
    ]
    completions = llm.generate([request.prompt for request in requests], sampling)
    answers = tuple(
        Answer(problem, c.text, grade(problem, c.text), c.finish_reason.value)
        for problem, c in zip(problems, completions, strict=True)
    )
    num_correct = sum(answer.correct for answer in answers)
    return ExactMatch(
        num_correct=num_correct,
        n=len(answers),
        interval=wilson(num_correct, len(answers)),
        finish_reasons=dict(sorted(Counter(answer.finish_reason for answer in answers).items())),
        answers=answers,
        first_prompt=requests[0].prompt if requests else (),
    )
