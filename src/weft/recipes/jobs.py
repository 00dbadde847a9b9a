"""What the verbs run: an algorithm's configuration plus the folders it reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from weft.align.grpo_config import GRPOConfig
from weft.core.errors import ConfigError
from weft.evals.harness import EvalConfig
from weft.spec import ModelShape
from weft.train.pretrain import PretrainConfig
from weft.train.sft import SFTConfig


@dataclass(frozen=True)
class TrainJob(PretrainConfig):
    """Pre-train a model on a corpus.

    Attributes:
        corpus: Folder written by `weft data build`.
        tokenizer: Folder written by `weft tokenizer train`, or any with a tokenizer.json.
        sample_prompt: The text that samples while training continue.
        tensorboard: Write metrics for TensorBoard too (extra: weft[tensorboard]).
    """

    corpus: Path = Path("runs/corpus")
    tokenizer: Path = Path("runs/tokenizer")
    sample_prompt: str = '    """Return '
    tensorboard: bool = False


@dataclass(frozen=True)
class SFTJob(SFTConfig):
    """Fine-tune a model on conversations.

    Attributes:
        base: Folder of the model to start from.
        data: A .jsonl file of conversations (Alpaca, ShareGPT or OpenAI messages).
        tasks: Generated tasks to take demonstrations from, each as NAME or NAME:DIFFICULTY.
        examples_per_task: Demonstrations of each task.
        tensorboard: Write metrics for TensorBoard too (extra: weft[tensorboard]).
    """

    base: Path = Path("runs/base/model")
    data: Path | None = None
    tasks: tuple[str, ...] = ()
    examples_per_task: int = 8000
    tensorboard: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.examples_per_task < 1:
            raise ConfigError(
                f"examples_per_task is {self.examples_per_task}; at least 1 is needed"
            )


def pretrain() -> TrainJob:
    """Return the recipe of a 3M-parameter decoder for a few minutes on one CPU."""
    return TrainJob(
        minutes=5.0,
        model=ModelShape(dim=256, num_layers=4, num_heads=4, num_kv_heads=2, context_length=512),
        sequence_length=256,
        tokens_per_step=4096,
    )


def pretrain_10m() -> TrainJob:
    """Return the recipe of a 10M-parameter Qwen3-shaped decoder, about 100M tokens."""
    return TrainJob(
        steps=6000,
        model=ModelShape(
            family="qwen3",
            dim=320,
            num_layers=6,
            num_heads=5,
            num_kv_heads=5,
            context_length=1024,
        ),
        sequence_length=512,
        tokens_per_step=16_384,
        micro_batch_tokens=8192,
        checkpoint_interval_s=300.0,
    )


def sft() -> SFTJob:
    """Return the recipe of fine-tuning on a generated task."""
    return SFTJob(epochs=3.0, sequence_length=256, tokens_per_step=4096)


@dataclass(frozen=True)
class GRPOJob(GRPOConfig):
    """Improve a model by reinforcement learning.

    Attributes:
        base: Folder of the model to start from.
        tensorboard: Write metrics for TensorBoard too (extra: weft[tensorboard]).
    """

    base: Path = Path("runs/sft/model")
    tensorboard: bool = False


def grpo() -> GRPOJob:
    """Return the recipe of GRPO on two-digit additions."""
    return GRPOJob()


@dataclass(frozen=True)
class EvalJob(EvalConfig):
    """Measure a model.

    Attributes:
        model: Folder of the model.
        corpus: Folder written by `weft data build`; its held-out part gives bits per byte.
    """

    model: Path = Path("runs/quickstart/model")
    corpus: Path | None = None


def evaluation() -> EvalJob:
    """Return the recipe of the built-in evaluations."""
    return EvalJob()
