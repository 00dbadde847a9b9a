"""``weft train``: pre-train a model from scratch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.configs import Overrides, Source, assemble, base_and_file, split_source
from weft.core.console import LiveLine, console, format_bytes, format_duration
from weft.core.runs import RunDirectory

if TYPE_CHECKING:
    from weft.data.corpus import Corpus
    from weft.data.shards import TokenShards
    from weft.models.decoder import Decoder
    from weft.recipes.jobs import TrainJob
    from weft.spec import HardwareSpec
    from weft.text.tokenizer import Tokenizer
    from weft.train.trainer import TrainResult


def train(source: Source = None, *overrides: Overrides, out: Path) -> None:
    """Pre-train a model from scratch.

    Parameters
    ----------
    source
        A recipe's name or a TOML file; none is the recipe "pretrain".
    overrides
        --section.key value pairs.
    out
        Run folder; the same command continues an interrupted run.
    """
    source, overrides = split_source(source, overrides)
    base, file = base_and_file(source, "pretrain")
    job: TrainJob = assemble(base, file, overrides)
    result = run_train(job, out)
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in result.metrics.items())
    console.print(f"{result.steps} steps in {format_duration(result.elapsed_s)}; {numbers}")
    console.print(f"model: {out / 'model'}", markup=False)


def run_train(job: TrainJob, out: Path, *, hardware: HardwareSpec | None = None) -> TrainResult:
    """Tokenize a corpus, check that the model fits into memory, and train it."""
    from weft.data.corpus import Corpus
    from weft.ops.machine import configure_threads, keep_freed_memory, measure_peaks
    from weft.text.tokenizer import Tokenizer
    from weft.train.pretrain import run_pretrain

    configure_threads(job.num_threads)
    keep_freed_memory()
    corpus, tokenizer = Corpus(job.corpus), Tokenizer.load(job.tokenizer)
    with RunDirectory(out).open(job) as events:
        shards = tokenize(corpus, tokenizer, out / "shards")
        hardware = hardware or measure_peaks()
        check_memory(job, tokenizer.vocab_size, hardware)
        return run_pretrain(
            job,
            folder=out,
            tokenizer=tokenizer,
            train=shards["train"],
            heldout=shards["heldout"],
            events=events,
            on_sample=text_sampler(tokenizer, job.sample_prompt),
            hardware=hardware,
        )


def tokenize(corpus: Corpus, tokenizer: Tokenizer, folder: Path) -> dict[str, TokenShards]:
    """Tokenize a corpus with a live line; complete shards are reused."""
    from weft.data.corpus import tokenize_corpus

    total = sum(corpus.manifest[split]["num_bytes"] for split in ("train", "heldout"))
    with LiveLine("tokenize", total=total) as line:
        return tokenize_corpus(
            corpus, tokenizer, folder, progress=lambda n: line.update(n, format_bytes(n))
        )


def check_memory(job: TrainJob, vocab_size: int, hardware: HardwareSpec) -> None:
    """Refuse a model that cannot be trained on this machine.

    Raises:
        ResourceError: what is missing and which key to lower.
    """
    from weft.plan.memory import training_memory

    ledger = training_memory(
        job.model.build(vocab_size), micro_batch_tokens=job.tokens_per_micro_batch
    )
    ledger.require(
        hardware.memory_bytes, fix="lower micro_batch_tokens, model.dim or model.num_layers"
    )


def text_sampler(
    tokenizer: Tokenizer, prompt: str, *, max_tokens: int = 48
) -> Callable[[Decoder], str]:
    """Return the function that shows how the model continues ``prompt`` at a document's start."""
    from weft.engine.config import EngineConfig
    from weft.engine.llm import LLM
    from weft.spec import SamplingParams

    sampling = SamplingParams(max_tokens=max_tokens, temperature=0.7, top_p=0.95, seed=0)
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    tokens = [*begin, *tokenizer.encode(prompt)]

    def sample(model: Decoder) -> str:
        llm = LLM(model, tokenizer, EngineConfig(max_num_sequences=1))
        return prompt + llm.generate(tokens, sampling)[0].text

    return sample
