"""``weft speculator``: train a head that drafts for a model, measure any kind of guesses."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.configs import Overrides, assemble, base_and_file
from weft.core.console import console, format_duration
from weft.core.files import write_json
from weft.core.runs import RunDirectory

if TYPE_CHECKING:
    from weft.engine.speculation.config import SpeculationConfig
    from weft.evals.speculation import SpeculationReport
    from weft.recipes.speculator import SpeculatorEvalJob, SpeculatorJob
    from weft.text.render import Rendered
    from weft.text.tokenizer import Tokenizer
    from weft.train.speculator_run import BatchSource

# Of so many conversations one is left out of training and gives a prompt to measure on.
_HELDOUT_EVERY = 20


def train(base: Path, *overrides: Overrides, out: Path, config: str | None = None) -> None:
    """Train a head that drafts for a model, and count the guesses that hold.

    Parameters
    ----------
    base
        Folder of the model to draft for; it is not changed.
    overrides
        --section.key value pairs; --kind is eagle, medusa or block, and --corpus FOLDER or
        --data CHATS.jsonl says what to learn from.
    out
        Run folder, with the head in out/head; the same command continues an interrupted run.
    config
        A recipe's name or a TOML file.
    """
    defaults, file = base_and_file(config, "speculator")
    job: SpeculatorJob = assemble(defaults, file, overrides, base=base)
    report = run_speculator_job(job, out)
    _show(report, str(out / "head"))
    command = serve_command(job.base, job.speculation(out / "head"))
    console.print(f"serve with it:\n  {command}", markup=False, soft_wrap=True)


def evaluate(
    model: Path, *overrides: Overrides, out: Path | None = None, config: str | None = None
) -> None:
    """Count the guesses that hold, and the tokens per second with and without them.

    Parameters
    ----------
    model
        Folder of a Hugging Face checkpoint.
    overrides
        --section.key value pairs; --corpus FOLDER or --data CHATS.jsonl gives the prompts,
        --speculation.kind is ngram, suffix, draft, mtp, eagle, medusa or block,
        --speculation.path the folder of a head or of a smaller model.
    out
        Run folder for eval.json; none prints only the table.
    config
        A recipe's name or a TOML file.
    """
    defaults, file = base_and_file(config, "speculator-eval")
    job: SpeculatorEvalJob = assemble(defaults, file, overrides, model=model)
    if out is None:
        report = run_speculator_eval_job(job)
    else:
        with RunDirectory(out).open(job):
            report = run_speculator_eval_job(job)
            write_json(out / "eval.json", {"seed": job.measure.seed, "results": report.rows()})
    _show(report, str(model))


def run_speculator_job(job: SpeculatorJob, out: Path) -> SpeculationReport:
    """Load the model, train the head, serve with it, and write ``eval.json``.

    Raises:
        ConfigError, UnsupportedError: before anything is trained, what could not be served.
    """
    import torch

    from weft.checkpoint.hf import load_model
    from weft.evals.speculation import check_measurable, measure_speculation
    from weft.ops.machine import configure_threads, keep_freed_memory
    from weft.recipes.speculator import check_texts
    from weft.text.tokenizer import Tokenizer
    from weft.train.loop_config import resolve_device
    from weft.train.speculator_run import run_speculator

    check_texts(job.corpus, job.data)
    configure_threads(job.num_threads)
    keep_freed_memory()
    device = resolve_device(job.device)
    model, tokenizer = (
        load_model(job.base, dtype=torch.float32, device=device),
        Tokenizer.load(job.base),
    )
    tokenizer.check_model(model.spec.vocab_size)
    check_measurable(job.measure, job.speculation(), model.spec)
    with RunDirectory(out).open(job) as events:
        source, prompts = _texts(job, tokenizer, out)
        head, result = run_speculator(job, model, source, folder=out, events=events)
        console.print(f"{result.steps} steps in {format_duration(result.elapsed_s)}")
        report = measure_speculation(model, job.speculation(), prompts, job.measure, drafter=head)
        stats = report.stats
        events.emit(
            "eval",
            step=result.steps,
            final=True,
            acceptance=stats.acceptance_rate,
            tokens_per_step=stats.tokens_per_draft,
            acceptance_by_position=list(stats.acceptance_by_position),
            speedup=report.speedup,
        )
        write_json(out / "eval.json", {"seed": job.measure.seed, "results": report.rows()})
    return report


def run_speculator_eval_job(job: SpeculatorEvalJob) -> SpeculationReport:
    """Load the model and continue held-out texts with guesses and without."""
    from weft.checkpoint.hf import load_model
    from weft.evals.speculation import check_measurable, measure_speculation
    from weft.ops.machine import configure_threads
    from weft.recipes.speculator import check_texts
    from weft.text.tokenizer import Tokenizer

    check_texts(job.corpus, job.data)
    configure_threads()
    model = load_model(job.model, mtp=job.speculation.kind == "mtp")
    tokenizer = Tokenizer.load(job.model)
    tokenizer.check_model(model.spec.vocab_size)
    check_measurable(job.measure, job.speculation, model.spec)
    prompts = _heldout_prompts(job, tokenizer)
    return measure_speculation(model, job.speculation, prompts, job.measure)


def serve_command(model: Path, speculation: SpeculationConfig) -> str:
    """Return the command that serves a model with guesses."""
    words = ["weft", "serve", str(model), "--speculation.kind", speculation.kind]
    words += ["--speculation.max-draft", str(speculation.max_draft)]
    if speculation.path is not None:
        words += ["--speculation.path", speculation.path]
    return shlex.join(words)


def _show(report: SpeculationReport, title: str) -> None:
    console.print(report.table(title))
    if report.speedup < 1.0:
        console.print(
            "Drafting does not pay here; a server measures that and stops drafting by itself.",
            soft_wrap=True,
        )


def _texts(
    job: SpeculatorJob, tokenizer: Tokenizer, out: Path
) -> tuple[BatchSource, list[Sequence[int]]]:
    """Return what to learn from, and prompts that are not part of it."""
    from weft.data.examples import ExampleLoader
    from weft.data.loader import Loader

    sizes = {
        "sequence_length": job.sequence_length,
        "tokens_per_batch": job.tokens_per_micro_batch,
        "seed": job.seed,
    }
    if job.corpus is None:
        chats = _chats(job.data, tokenizer)
        heldout = chats[::_HELDOUT_EVERY]
        rest = [chat for index, chat in enumerate(chats) if index % _HELDOUT_EVERY]
        return ExampleLoader(rest or chats, **sizes), [_question(chat) for chat in heldout]
    from weft.cli.train import tokenize
    from weft.data.corpus import Corpus
    from weft.evals.speculation import cut_prompts, spread

    shards = tokenize(Corpus(job.corpus), tokenizer, out / "shards")
    heldout = shards["heldout"]
    chosen = spread(heldout.num_documents, job.measure.num_prompts)
    documents = [heldout.document(index).tolist() for index in chosen]
    return Loader(shards["train"], **sizes), cut_prompts(documents, job.measure)


def _heldout_prompts(job: SpeculatorEvalJob, tokenizer: Tokenizer) -> list[Sequence[int]]:
    if job.corpus is None:
        return [_question(chat) for chat in _chats(job.data, tokenizer)]
    from weft.data.corpus import Corpus
    from weft.evals.speculation import cut_prompts, spread

    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    texts = [document.text for document in Corpus(job.corpus).heldout_documents()]
    chosen = [texts[index] for index in spread(len(texts), job.measure.num_prompts)]
    documents = [[*begin, *tokens] for tokens in tokenizer.encode_batch(chosen)]
    return cut_prompts(documents, job.measure)


def _chats(data: Path | None, tokenizer: Tokenizer) -> list[Rendered]:
    from weft.cli.sft import render
    from weft.data.instruct import read_instructions

    assert data is not None
    return render(tokenizer, list(read_instructions(data)))


def _question(chat: Rendered) -> Sequence[int]:
    """Return what stands before the first answer."""
    return chat.tokens[: chat.mask.index(True)] if True in chat.mask else chat.tokens
