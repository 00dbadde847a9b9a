"""``weft sft``: fine-tune a model on instructions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.configs import Overrides, assemble, base_and_file
from weft.core.console import console, format_duration
from weft.core.errors import ConfigError
from weft.core.runs import RunDirectory

if TYPE_CHECKING:
    from weft.data.instruct import Message
    from weft.recipes.jobs import SFTJob
    from weft.text.render import Rendered
    from weft.text.tokenizer import Tokenizer
    from weft.train.trainer import TrainResult


def sft(base: Path, *overrides: Overrides, out: Path, config: str | None = None) -> None:
    """Fine-tune a model on instructions.

    Parameters
    ----------
    base
        Folder of the model to start from.
    overrides
        --section.key value pairs; --data FILE or --tasks NAME says what to learn.
    out
        Run folder; the same command continues an interrupted run.
    config
        A recipe's name or a TOML file.
    """
    defaults, file = base_and_file(config, "sft")
    job: SFTJob = assemble(defaults, file, overrides, base=base)
    result = run_sft_job(job, out)
    console.print(f"{result.steps} steps in {format_duration(result.elapsed_s)}")
    console.print(f"model: {out / 'model'}", markup=False)


def run_sft_job(job: SFTJob, out: Path) -> TrainResult:
    """Load the base model, render the conversations and fine-tune."""
    from weft.checkpoint.hf import load_model
    from weft.ops.machine import configure_threads
    from weft.text.tokenizer import Tokenizer
    from weft.train.loop_config import resolve_device
    from weft.train.sft import run_sft

    configure_threads(job.num_threads)
    device = resolve_device(job.device)
    model, tokenizer = load_model(job.base, device=device), Tokenizer.load(job.base)
    tokenizer.check_model(model.spec.vocab_size)
    with RunDirectory(out).open(job) as events:
        examples = render(tokenizer, conversations(job))
        return run_sft(job, model, examples, folder=out, events=events, tokenizer=tokenizer)


def conversations(job: SFTJob) -> list[list[Message]]:
    """Read the file and draw the demonstrations that a job asks for.

    Raises:
        ConfigError: neither data nor tasks is given.
    """
    from weft.data.instruct import read_instructions
    from weft.data.tasks.task import demonstration

    if job.data is None and not job.tasks:
        raise ConfigError(
            "there is nothing to learn", fix="give --data FILE.jsonl or --tasks addition"
        )
    result = [] if job.data is None else list(read_instructions(job.data))
    for name in job.tasks:
        result += [demonstration(p) for p in task_problems(name, job.examples_per_task, job.seed)]
    return result


def task_problems(name: str, count: int, seed: int) -> list:
    """Return up to ``count`` training problems of ``NAME`` or ``NAME:DIFFICULTY``."""
    import itertools

    from weft.data.tasks.catalog import open_task

    task_name, _, difficulty = name.partition(":")
    if difficulty and not difficulty.isdigit():
        raise ConfigError(f"{name!r} has no whole number after the colon", fix="write addition:99")
    task = open_task(task_name, difficulty=int(difficulty) if difficulty else None)
    return list(itertools.islice(task.problems("train", seed), count))


def render(tokenizer: Tokenizer, chats: list[list[Message]]) -> list[Rendered]:
    """Turn conversations into tokens and loss masks."""
    from weft.text.render import Renderer

    renderer = Renderer(tokenizer)
    return [renderer.render(messages) for messages in chats]
