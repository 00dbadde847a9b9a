"""``weft eval``: measure a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.configs import Overrides, assemble, base_and_file
from weft.core.console import console
from weft.core.runs import RunDirectory

if TYPE_CHECKING:
    from weft.evals.harness import EvalReport
    from weft.recipes.jobs import EvalJob


def evaluate(
    model: Path, *overrides: Overrides, out: Path | None = None, config: str | None = None
) -> None:
    """Measure a model: bits per byte, exact match, multiple choice.

    Parameters
    ----------
    model
        Folder of a Hugging Face checkpoint.
    overrides
        --section.key value pairs, such as --tasks addition,docstring_choice --num-items 500.
    out
        Run folder for eval.json and the report; none prints only the table.
    config
        A recipe's name or a TOML file.
    """
    defaults, file = base_and_file(config, "eval")
    job: EvalJob = assemble(defaults, file, overrides, model=model)
    report = run_eval_job(job) if out is None else _evaluate_into(job, out)
    console.print(report.table(str(model)))


def run_eval_job(job: EvalJob) -> EvalReport:
    """Load the model, and the corpus if one is given, and evaluate."""
    from weft.checkpoint.hf import load_model
    from weft.data.corpus import Corpus
    from weft.evals.harness import evaluate
    from weft.evals.perplexity import encode_documents
    from weft.ops.machine import configure_threads
    from weft.text.tokenizer import Tokenizer

    configure_threads()
    model, tokenizer = load_model(job.model), Tokenizer.load(job.model)
    tokenizer.check_model(model.spec.vocab_size)
    heldout = None
    if job.corpus is not None:
        heldout = encode_documents(Corpus(job.corpus).heldout_documents(), tokenizer)
    return evaluate(job, model, tokenizer, heldout=heldout)


def _evaluate_into(job: EvalJob, out: Path) -> EvalReport:
    from weft.report.write import write_report

    with RunDirectory(out).open(job) as events:
        report = run_eval_job(job)
        report.write(out / "eval.json")
        for result in report.results:
            events.emit("eval", task=result.task, metric=result.metric, score=result.score)
    console.print(f"wrote {out / 'eval.json'} and {write_report(out)}", markup=False)
    return report
