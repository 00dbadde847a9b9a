"""``weft grpo``: improve a model on a task whose answers can be checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.configs import Overrides, assemble, base_and_file
from weft.core.console import console, format_duration
from weft.core.runs import RunDirectory

if TYPE_CHECKING:
    from weft.align.grpo_config import GRPOResult
    from weft.recipes.jobs import GRPOJob


def grpo(base: Path, *overrides: Overrides, out: Path, config: str | None = None) -> None:
    """Improve a model on a task whose answers can be checked (GRPO).

    Parameters
    ----------
    base
        Folder of the model to start from; it should already solve some of the problems.
    overrides
        --section.key value pairs, such as --task addition --difficulty 99 --minutes 3.
    out
        Run folder; the same command continues an interrupted run.
    config
        A recipe's name or a TOML file.
    """
    defaults, file = base_and_file(config, "grpo")
    job: GRPOJob = assemble(defaults, file, overrides, base=base)
    result = run_grpo_job(job, out)
    console.print(
        f"{result.steps} rollouts in {format_duration(result.elapsed_s)}, last reward "
        f"{result.reward:.3f}; {result.mismatch_text}"
    )
    console.print(f"model: {out / 'model'}", markup=False)


def run_grpo_job(job: GRPOJob, out: Path) -> GRPOResult:
    """Load the policy and train it; engine and trainer share its tensors."""
    import torch

    from weft.align.grpo import run_grpo
    from weft.checkpoint.hf import load_model
    from weft.ops.machine import configure_threads
    from weft.text.tokenizer import Tokenizer

    configure_threads(job.num_threads)
    model, tokenizer = load_model(job.base, dtype=torch.float32), Tokenizer.load(job.base)
    tokenizer.check_model(model.spec.vocab_size)
    with RunDirectory(out).open(job) as events:
        return run_grpo(job, model, tokenizer, folder=out, events=events)
