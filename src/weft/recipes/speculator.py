"""Speculation: what `weft speculator` trains and measures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from weft.core.errors import ConfigError
from weft.engine.speculation.config import SpeculationConfig
from weft.evals.speculation import MeasureConfig
from weft.train.speculator_run import SpeculatorConfig


def check_texts(corpus: Path | None, data: Path | None) -> None:
    """Refuse no text at all, or two kinds of it.

    Raises:
        ConfigError: not exactly one of both is given.
    """
    if corpus is None and data is None:
        raise ConfigError(
            "there is no text to draft for", fix="give --corpus FOLDER or --data CHATS.jsonl"
        )
    if corpus is not None and data is not None:
        raise ConfigError("both corpus and data are given", fix="leave one of them out")


@dataclass(frozen=True)
class SpeculatorJob(SpeculatorConfig):
    """Train a head that drafts for a model, and measure it.

    Attributes:
        base: Folder of the model to draft for.
        corpus: Folder written by `weft data build`.
        data: A .jsonl file of conversations, in place of a corpus.
        measure: What is generated at the end to count the guesses that hold.
        tensorboard: Write metrics for TensorBoard too (extra: weft[tensorboard]).
    """

    base: Path = Path("runs/base/model")
    corpus: Path | None = None
    data: Path | None = None
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    tensorboard: bool = False

    def speculation(self, head: Path | None = None) -> SpeculationConfig:
        """Return how an engine drafts with the head."""
        path = None if head is None else str(head)
        return SpeculationConfig(self.kind, max_draft=self.num_guesses, path=path)


def speculator() -> SpeculatorJob:
    """Return the recipe of an EAGLE head: five minutes on one CPU."""
    return SpeculatorJob(minutes=5.0, tokens_per_step=1024)


@dataclass(frozen=True)
class SpeculatorEvalJob:
    """Measure one kind of guesses on a model; they are made in every step.

    Attributes:
        model: Folder of the model.
        corpus: Folder written by `weft data build`; its held-out part gives the prompts.
        data: A .jsonl file of conversations whose questions are the prompts.
        speculation: How tokens are guessed.
        measure: What is generated.
    """

    model: Path = Path("runs/base/model")
    corpus: Path | None = None
    data: Path | None = None
    speculation: SpeculationConfig = field(default_factory=SpeculationConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)


def speculator_eval() -> SpeculatorEvalJob:
    """Return the recipe of measuring prompt lookup, which needs no training."""
    return SpeculatorEvalJob()
