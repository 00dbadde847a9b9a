"""Experts against a dense model at equal active parameters, on the same text."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from weft.core.events import Events
from weft.core.files import write_json
from weft.core.runs import RunDirectory
from weft.data.build import CorpusConfig, build_corpus
from weft.data.corpus import Corpus, tokenize_corpus
from weft.data.shards import TokenShards
from weft.plan.parameters import count_parameters
from weft.recipes.jobs import TrainJob
from weft.report.write import write_report
from weft.spec import ExpertShape, ModelShape
from weft.spec.shape import Family
from weft.text.tokenizer import Tokenizer
from weft.text.train import train_bpe
from weft.train.optim import OptimizerConfig
from weft.train.pretrain import PretrainConfig, run_pretrain
from weft.train.schedule import ScheduleConfig

EXPERTS = ExpertShape(num_experts=8, top_k=2)


@dataclass(frozen=True)
class MoEComparison:
    """Train a dense model and one with experts for the same number of steps.

    Attributes:
        corpus: Where the text comes from.
        vocab_size: Tokens of the tokenizer, learnt from the text.
        training: Both runs; ``model`` is the dense one.
        experts: What the other run has in place of the dense parts. With expert_dim left out as
            many feed-forward parameters are active for a token as in the dense model.
        family: Hugging Face family of the model with experts.
    """

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    vocab_size: int = 2048
    training: PretrainConfig = field(
        default_factory=lambda: PretrainConfig(
            steps=400,
            model=ModelShape(family="qwen3", dim=128, num_layers=3, num_heads=4, ffn_dim=384),
            sequence_length=256,
            tokens_per_step=4096,
            precision="fp32",
            eval_interval_s=15.0,
            sample_interval_s=None,
            optimizer=OptimizerConfig(lr=3e-3, matrix_lr=1e-2),
            schedule=ScheduleConfig(kind="wsd", warmup_steps=20),
        )
    )
    experts: ExpertShape = EXPERTS
    family: Family = "qwen3_moe"

    @property
    def runs(self) -> dict[str, PretrainConfig]:
        """Both configurations by name."""
        shape = self.training.model
        sparse = replace(shape, family=self.family, experts=self.experts)
        return {"dense": self.training, "experts": replace(self.training, model=sparse)}


def moe_comparison() -> MoEComparison:
    """Return the recipe of the comparison: 8 experts, 2 per token, minutes on one CPU."""
    return MoEComparison()


def pretrain_moe() -> TrainJob:
    """Return the recipe of a decoder with 8 experts and 3M active parameters."""
    shape = ModelShape(
        family="qwen3_moe", dim=256, num_layers=4, num_heads=4, num_kv_heads=2, experts=EXPERTS
    )
    return TrainJob(minutes=5.0, model=shape, sequence_length=256, tokens_per_step=4096)


def run_comparison(config: MoEComparison, out: Path) -> dict[str, Any]:
    """Run both trainings below ``out``, write the report, and return the summary.

    A repeated call continues what was interrupted.

    Raises:
        Interrupted: Ctrl-C; the same call continues.
    """
    with RunDirectory(out).open(config) as events:
        tokenizer, shards = _data(config, out, events)
        runs = {
            name: _train(training, out / name, tokenizer, shards)
            for name, training in config.runs.items()
        }
        summary = {"runs": runs, "num_parameters": runs["experts"]["num_parameters"]}
        write_json(out / "summary.json", summary)
        events.emit("summary", **{name: run["bits_per_byte"] for name, run in runs.items()})
    write_report(out)
    return summary


def _data(
    config: MoEComparison, out: Path, events: Events
) -> tuple[Tokenizer, dict[str, TokenShards]]:
    build_corpus(config.corpus, out / "corpus", events=events)
    corpus = Corpus(out / "corpus")
    if (out / "tokenizer" / "tokenizer.json").exists():
        tokenizer = Tokenizer.load(out / "tokenizer")
    else:
        tokenizer = train_bpe(corpus.train_texts(), config.vocab_size)
        tokenizer.save(out / "tokenizer")
    return tokenizer, tokenize_corpus(corpus, tokenizer, out / "shards")


def _train(
    training: PretrainConfig, out: Path, tokenizer: Tokenizer, shards: dict[str, TokenShards]
) -> dict[str, float]:
    """Run one of the two; returns its sizes and what it reached."""
    with RunDirectory(out).open(training) as events:
        result = run_pretrain(
            training,
            folder=out,
            tokenizer=tokenizer,
            train=shards["train"],
            heldout=shards["heldout"],
            events=events,
        )
    count = count_parameters(result.model.spec)
    return {
        "num_parameters": count.total,
        "num_active_parameters": count.active,
        "steps": result.steps,
        "elapsed_s": round(result.elapsed_s, 1),
        "tokens_per_s": result.num_tokens / max(result.elapsed_s, 1e-9),
        **result.metrics,
    }
