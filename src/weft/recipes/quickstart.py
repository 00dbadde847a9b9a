"""The quick start as data: how a number of minutes becomes the configuration of every step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from weft.align.grpo_config import GRPOConfig
from weft.core.errors import ConfigError
from weft.data.build import CorpusConfig
from weft.spec import ModelShape, SamplingParams
from weft.train.optim import OptimizerConfig
from weft.train.pretrain import PretrainConfig
from weft.train.schedule import ScheduleConfig
from weft.train.sft import SFTConfig

# Shares of the minutes; the rest goes to the corpus, the tokenizer, evaluations and the report.
PRETRAIN_SHARE, SFT_SHARE, GRPO_SHARE = 0.42, 0.15, 0.30
MIN_MINUTES = 0.25
# Longest answer of the tasks, end token included.
MAX_ANSWER_TOKENS = 12
# Below this many minutes the corpus is cut, so that reading it does not take most of them.
WHOLE_CORPUS_MINUTES = 4.0
BYTES_PER_MINUTE = 2_500_000


@dataclass(frozen=True)
class QuickstartConfig:
    """From raw text to a chat, in minutes.

    Attributes:
        minutes: About how long everything takes on two processor cores.
        seed: Decides weights, data order and every drawn token.
        vocab_size: Tokens of the tokenizer.
        corpus: Where the text comes from.
        model: The shape of the model.
        task: What the model learns to do: sorting, addition or brackets.
        difficulty: Numbers to sort, largest operand or symbols.
        num_demonstrations: Problems of the task shown in fine-tuning.
        num_docstrings: Questions about the standard library shown in fine-tuning.
        sft_target: Fine-tuning ends when this share of problems it was not shown is right, so
            that something is left to learn by trying.
        eval_problems: Held-out problems asked after each stage.
    """

    minutes: float = 10.0
    seed: int = 0
    vocab_size: int = 2048
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    model: ModelShape = field(
        default_factory=lambda: ModelShape(
            dim=256, num_layers=4, num_heads=4, num_kv_heads=2, context_length=512
        )
    )
    task: Literal["sorting", "addition", "brackets"] = "sorting"
    difficulty: int = 4
    num_demonstrations: int = 3000
    num_docstrings: int = 300
    sft_target: float = 0.4
    eval_problems: int = 400

    def __post_init__(self) -> None:
        if self.minutes < MIN_MINUTES:
            raise ConfigError(
                f"minutes is {self.minutes}", fix=f"give at least {MIN_MINUTES}, such as 2"
            )
        if self.eval_problems < 1:
            raise ConfigError(f"eval_problems is {self.eval_problems}; at least 1 is needed")


def corpus(config: QuickstartConfig) -> CorpusConfig:
    """Return the corpus: whole, or cut for a very short run."""
    if config.minutes >= WHOLE_CORPUS_MINUTES or config.corpus.max_bytes is not None:
        return config.corpus
    return replace(config.corpus, max_bytes=int(BYTES_PER_MINUTE * config.minutes))


def pretrain(config: QuickstartConfig) -> PretrainConfig:
    """Return the pre-training step."""
    return PretrainConfig(
        model=config.model,
        minutes=config.minutes * PRETRAIN_SHARE,
        sequence_length=256,
        tokens_per_step=4096,
        sample_interval_s=30.0,
        eval_interval_s=max(10.0, config.minutes * 6.0),
        seed=config.seed,
        optimizer=OptimizerConfig(lr=3e-3, matrix_lr=1e-2),
        schedule=ScheduleConfig(kind="wsd", warmup_steps=20),
    )


def sft(config: QuickstartConfig) -> SFTConfig:
    """Return the fine-tuning step."""
    return SFTConfig(
        epochs=None,
        minutes=config.minutes * SFT_SHARE,
        sequence_length=256,
        tokens_per_step=2048,
        seed=config.seed,
        optimizer=OptimizerConfig(lr=1e-3, matrix_lr=2e-3, weight_decay=0.0),
        schedule=ScheduleConfig(kind="linear", warmup_steps=10),
    )


def grpo(config: QuickstartConfig, *, sft_seconds: float | None = None) -> GRPOConfig:
    """Return the reinforcement-learning step; it gets the time that fine-tuning did not need."""
    budget = config.minutes * (SFT_SHARE + GRPO_SHARE)
    used = config.minutes * SFT_SHARE if sft_seconds is None else sft_seconds / 60
    return GRPOConfig(
        task=config.task,
        difficulty=config.difficulty,
        sampling=SamplingParams(max_tokens=MAX_ANSWER_TOKENS),
        optimizer=OptimizerConfig(lr=3e-4, matrix_lr=1e-3, weight_decay=0.0),
        steps=None,
        minutes=max(round(budget - used, 3), config.minutes * GRPO_SHARE),
        seed=config.seed,
    )
