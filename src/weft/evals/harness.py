"""Runs evaluations on one model and writes the result so that it can be repeated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from weft.core.console import table
from weft.core.errors import ConfigError
from weft.core.events import Events
from weft.core.files import write_json
from weft.data.shards import TokenDocument
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.evals.builtin import open_eval
from weft.evals.choice import ChoiceResult, choose
from weft.evals.exact_match import ExactMatch, chat_requests, judge
from weft.evals.interval import Interval
from weft.evals.perplexity import DocumentStore, Perplexity, measure_perplexity
from weft.evals.task import ChoiceTask, EvalTask, GenerationTask
from weft.models.decoder import Decoder
from weft.text.tokenizer import Tokenizer

FORMAT = {"format": "weft-eval", "version": 1}
NUM_EXAMPLES = 3


@dataclass(frozen=True)
class EvalConfig:
    """What a model is asked.

    Attributes:
        tasks: Built-in evaluations: addition, brackets, sorting, docstrings (generation),
            docstring_choice (multiple choice).
        num_items: Items of each.
        seed: Decides which items.
        difficulty: Of the generated tasks; none is each task's own.
        window: Positions seen at once for bits per byte; none is the model's context.
        stride: Positions the window advances; none is the window. Smaller gives every token more
            context.
        max_tokens: Tokens of held-out text at most; none reads all.
        engine: Sizes of the engine that generates.
    """

    tasks: tuple[str, ...] = ("addition", "docstring_choice")
    num_items: int = 250
    seed: int = 42
    difficulty: int | None = None
    window: int | None = None
    stride: int | None = None
    max_tokens: int | None = 200_000
    engine: EngineConfig = field(
        default_factory=lambda: EngineConfig(
            kv_tokens=16_384, max_num_sequences=256, max_tokens_per_step=4096
        )
    )

    def __post_init__(self) -> None:
        if self.num_items < 1:
            raise ConfigError(f"num_items is {self.num_items}; it must be at least 1")


@dataclass(frozen=True)
class TaskResult:
    """One line of the report.

    Attributes:
        task: Name of the evaluation.
        metric: What the score is.
        score: The figure.
        interval: 95 % interval of the score; none where it has none.
        n: Items behind it.
        sha256: Hash of the items.
        details: What else is worth keeping.
    """

    task: str
    metric: str
    score: float
    interval: Interval | None
    n: int
    sha256: str
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        interval = self.interval
        return {
            "task": self.task,
            "metric": self.metric,
            "score": self.score,
            "interval": None if interval is None else [interval.low, interval.high],
            "n": self.n,
            "sha256": self.sha256,
            **self.details,
        }


@dataclass(frozen=True)
class EvalReport:
    """Results of one model.

    Attributes:
        results: One per task, in the order asked for; held-out text first.
        seed: Which items.
        tokenizer_fingerprint: Of the tokenizer that made the tokens.
    """

    results: tuple[TaskResult, ...]
    seed: int
    tokenizer_fingerprint: str

    def score(self, task: str) -> float:
        """Return the score of a task.

        Raises:
            KeyError: it was not evaluated.
        """
        return {result.task: result.score for result in self.results}[task]

    def to_json(self) -> dict[str, Any]:
        """Return plain data; equal inputs give equal data (no times, no paths)."""
        return {
            **FORMAT,
            "seed": self.seed,
            "tokenizer": self.tokenizer_fingerprint,
            "results": [result.to_json() for result in self.results],
        }

    def write(self, path: Path) -> None:
        """Write the JSON, atomically."""
        write_json(path, self.to_json())

    def table(self, title: str = "evaluation") -> Table:
        """Return the results as a table for ``console.print``."""
        rows = [
            (r.task, r.metric, f"{r.score:.3f}", "" if r.interval is None else r.interval, r.n)
            for r in self.results
        ]
        return table(title, ("task", "metric", "score", "95 % interval", "n"), rows)


def evaluate(
    config: EvalConfig,
    model: Decoder,
    tokenizer: Tokenizer,
    *,
    heldout: DocumentStore | Iterable[TokenDocument] | None = None,
    tasks: Sequence[EvalTask] = (),
    events: Events | None = None,
) -> EvalReport:
    """Evaluate a model; emits an "eval" event for each result.

    Args:
        config: Which built-in tasks, and how.
        model: Used as it is, in evaluation mode.
        tokenizer: The model's.
        heldout: Token shards or token documents for bits per byte; none leaves that out.
        tasks: Further tasks, after the built-in ones.
        events: Takes the results.
    """
    was_training = model.training
    model.eval()
    opened = [
        open_eval(
            name,
            num_items=config.num_items,
            seed=config.seed,
            difficulty=None if name in ("docstrings", "docstring_choice") else config.difficulty,
        )
        for name in config.tasks
    ]
    results: list[TaskResult] = []
    try:
        if heldout is not None:
            results += _heldout(config, model, heldout)
        for task in (*opened, *tasks):
            results.append(_run(task, config, model, tokenizer))
    finally:
        model.train(was_training)
    if events is not None:
        for result in results:
            events.emit("eval", **_event(result))
    return EvalReport(tuple(results), config.seed, tokenizer.fingerprint)


def _run(task: EvalTask, config: EvalConfig, model: Decoder, tokenizer: Tokenizer) -> TaskResult:
    if isinstance(task, ChoiceTask):
        return _choice_result(task, choose(model, tokenizer, task.items))
    requests = chat_requests(tokenizer, task.problems, max_tokens=task.max_tokens)
    llm = LLM(model, tokenizer, config.engine)
    return _generation_result(task, judge(llm, requests, task.problems, task.grade))


def _heldout(
    config: EvalConfig, model: Decoder, heldout: DocumentStore | Iterable[TokenDocument]
) -> list[TaskResult]:
    measured = measure_perplexity(
        model,
        heldout,
        window=config.window,
        stride=config.stride,
        max_tokens=config.max_tokens,
    )
    return [_heldout_result(config, model, measured)]


def _heldout_result(config: EvalConfig, model: Decoder, measured: Perplexity) -> TaskResult:
    window = config.window or model.spec.context_length
    details = {
        "perplexity": measured.perplexity,
        "nats_per_token": measured.nats_per_token,
        "num_bytes": measured.num_bytes,
        "num_documents": measured.num_documents,
        "window": window,
        "stride": config.stride or window,
    }
    return TaskResult(
        "heldout", "bits_per_byte", measured.bits_per_byte, None, measured.num_tokens, "", details
    )


def _generation_result(task: GenerationTask, found: ExactMatch) -> TaskResult:
    examples = [
        {"question": a.problem.question, "answer": a.text, "correct": a.correct}
        for a in found.answers[:NUM_EXAMPLES]
    ]
    details = {
        "num_correct": found.num_correct,
        "finish_reasons": found.finish_reasons,
        "first_prompt": list(found.first_prompt),
        "examples": examples,
    }
    return TaskResult(
        task.name, "exact_match", found.score, found.interval, found.n, task.sha256, details
    )


def _choice_result(task: ChoiceTask, found: ChoiceResult) -> TaskResult:
    details = {
        "accuracy": found.accuracy,
        "chance": found.chance,
        "first_prompt": list(found.first_prompt),
    }
    return TaskResult(
        task.name,
        "accuracy_per_byte",
        found.accuracy_per_byte,
        found.interval_per_byte,
        found.n,
        task.sha256,
        details,
    )


def _event(result: TaskResult) -> dict[str, Any]:
    interval = result.interval
    bounds = {} if interval is None else {"low": interval.low, "high": interval.high}
    return {
        "task": result.task,
        "metric": result.metric,
        "score": result.score,
        "n": result.n,
        **bounds,
    }
