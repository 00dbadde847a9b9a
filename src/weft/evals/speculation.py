"""What speculation brings on given prompts: served by the engine with it and without it.

Acceptance is counted as the server's metrics count it: by position, the drafts whose guess so many
tokens ahead held, over all drafts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table
from torch import nn

from weft.core.console import table
from weft.core.errors import ConfigError
from weft.engine.config import EngineConfig
from weft.engine.features import check_features
from weft.engine.llm import LLM
from weft.engine.speculation.config import SpeculationConfig
from weft.engine.speculation.counters import SpeculationStats
from weft.models.decoder import Decoder
from weft.spec import ModelSpec, SamplingParams


@dataclass(frozen=True)
class MeasureConfig:
    """What is generated to measure speculation.

    Attributes:
        num_prompts: Prompts that are continued.
        prompt_tokens: Longest prompt taken from a document.
        max_tokens: Tokens behind each.
        max_num_sequences: Prompts served at the same time; guesses pay most where these are few.
        temperature: 0 takes the likeliest token.
        seed: Of the draws.
    """

    num_prompts: int = 16
    prompt_tokens: int = 64
    max_tokens: int = 64
    max_num_sequences: int = 1
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_prompts", "prompt_tokens", "max_tokens", "max_num_sequences"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", fix=f"set {name} to 1 or more"
                )

    @property
    def sampling(self) -> SamplingParams:
        """How tokens are drawn; a text goes on behind its end, so that all are equally long."""
        return SamplingParams(
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            seed=self.seed,
            ignore_eos=True,
        )


@dataclass(frozen=True)
class SpeculationReport:
    """What was measured.

    Attributes:
        kind: Where guesses came from.
        stats: Drafts and guesses that held.
        num_prompts: Prompts continued.
        num_equal: Of those, how many gave the very tokens they give without guesses.
        num_tokens: Tokens generated.
        plain_s: Seconds without guesses.
        drafted_s: Seconds with guesses.
    """

    kind: str
    stats: SpeculationStats
    num_prompts: int
    num_equal: int
    num_tokens: int
    plain_s: float
    drafted_s: float

    @property
    def speedup(self) -> float:
        """Tokens per second with guesses over those without."""
        return self.plain_s / self.drafted_s

    def table(self, title: str) -> Table:
        """Return the figures for people."""
        rows = [
            (f"guess {position} held", f"{share:.1%}")
            for position, share in enumerate(self.stats.acceptance_by_position, start=1)
        ]
        rows += [
            ("guesses that held", f"{self.stats.acceptance_rate:.1%}"),
            ("tokens per step with guesses", f"{self.stats.tokens_per_draft:.2f}"),
            ("tokens per second without", f"{self.num_tokens / self.plain_s:.1f}"),
            ("tokens per second with", f"{self.num_tokens / self.drafted_s:.1f}"),
            ("speed-up", f"{self.speedup:.2f}"),
            ("texts that are the same", f"{self.num_equal} of {self.num_prompts}"),
        ]
        return table(title, ("speculation", self.kind), rows)

    def rows(self) -> list[dict[str, Any]]:
        """Return the figures as the results of an ``eval.json``."""
        scores = {
            f"guess {position} held": share
            for position, share in enumerate(self.stats.acceptance_by_position, start=1)
        }
        scores |= {
            "guesses that held": self.stats.acceptance_rate,
            "tokens per step with guesses": self.stats.tokens_per_draft,
            "speed-up": self.speedup,
        }
        task = f"speculation ({self.kind})"
        return [
            {"task": task, "metric": metric, "score": score, "n": self.stats.num_drafts}
            for metric, score in scores.items()
        ]


def measured_engine(config: MeasureConfig, speculation: SpeculationConfig) -> EngineConfig:
    """Return the engine that is measured: it always drafts."""
    return EngineConfig(
        max_num_sequences=config.max_num_sequences, speculation=replace(speculation, switch=None)
    )


def check_measurable(
    config: MeasureConfig, speculation: SpeculationConfig, spec: ModelSpec
) -> None:
    """Refuse what cannot be measured, such as before an hour of training.

    Raises:
        ConfigError: the texts are longer than the context.
        UnsupportedError: the model cannot be served with guesses.
    """
    check_features(measured_engine(config, speculation), spec)
    num_tokens = config.prompt_tokens + config.max_tokens
    if num_tokens > spec.context_length:
        raise ConfigError(
            f"prompt_tokens {config.prompt_tokens} and max_tokens {config.max_tokens} are more "
            f"than the model's context of {spec.context_length}",
            fix=f"lower both to at most {spec.context_length // 2}",
        )


def spread(num_items: int, num_chosen: int) -> list[int]:
    """Return indices from all over a list.

    >>> spread(10, 3)
    [0, 3, 6]
    """
    num_chosen = min(num_items, num_chosen)
    return (np.arange(num_chosen) * num_items // max(num_chosen, 1)).tolist()


def cut_prompts(documents: Sequence[Sequence[int]], config: MeasureConfig) -> list[Sequence[int]]:
    """Return prompts from all over documents, several of one where there are few documents."""
    length = config.prompt_tokens
    pieces = [
        document[start : start + length]
        for document in documents
        for start in range(0, max(len(document) - length, 0) + 1, length)
        if len(document)
    ]
    return [pieces[index] for index in spread(len(pieces), config.num_prompts)]


def measure_speculation(
    model: Decoder,
    speculation: SpeculationConfig,
    prompts: Sequence[Sequence[int]],
    config: MeasureConfig,
    *,
    drafter: nn.Module | None = None,
) -> SpeculationReport:
    """Continue prompts with guesses and without.

    Args:
        model: The target.
        speculation: How to guess; ``switch`` is left out, so every step has guesses.
        prompts: Token ids; those longer than ``prompt_tokens`` are cut.
        config: What is generated.
        drafter: The network of kinds that need one; none loads ``speculation.path``.

    Raises:
        ConfigError, UnsupportedError: see ``check_measurable``; or there is no prompt.
    """
    check_measurable(config, speculation, model.spec)
    if not prompts:
        raise ConfigError("there is no prompt to continue", fix="give a corpus with held-out text")
    chosen = [
        list(prompts[i])[: config.prompt_tokens] for i in spread(len(prompts), config.num_prompts)
    ]
    engine = measured_engine(config, speculation)
    _generate(model, replace(engine, speculation=None), chosen[:1], config, None)  # warms caches
    plain, plain_s, _ = _generate(model, replace(engine, speculation=None), chosen, config, None)
    drafted, drafted_s, stats = _generate(model, engine, chosen, config, drafter)
    assert stats is not None
    return SpeculationReport(
        speculation.kind,
        stats,
        num_prompts=len(chosen),
        num_equal=sum(ours == theirs for ours, theirs in zip(drafted, plain, strict=True)),
        num_tokens=sum(len(tokens) for tokens in plain),
        plain_s=plain_s,
        drafted_s=drafted_s,
    )


def _generate(
    model: Decoder,
    engine: EngineConfig,
    prompts: Sequence[Sequence[int]],
    config: MeasureConfig,
    drafter: nn.Module | None,
) -> tuple[list[tuple[int, ...]], float, SpeculationStats | None]:
    llm = LLM(model, None, engine, drafter=drafter)
    start_s = time.perf_counter()
    done = llm.generate(list(prompts), config.sampling)
    seconds = time.perf_counter() - start_s
    return [tuple(one.tokens) for one in done], seconds, llm.stats().speculation
