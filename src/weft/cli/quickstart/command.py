"""The verb: order of the steps, closing words, the server."""

from __future__ import annotations

import shutil
import sys
import webbrowser
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.text import Text

from weft.cli.configs import Overrides, assemble, recipe
from weft.core.console import console, format_duration, table
from weft.core.errors import Interrupted
from weft.core.runs import RunDirectory


def quickstart(
    *overrides: Overrides,
    minutes: float | None = None,
    out: Path = Path("runs/quickstart"),
    serve: bool = True,
    open_browser: bool = True,
    host: str = "127.0.0.1",
    port: int = 8000,
) -> None:
    """From raw text to a chat in the browser, with a model trained here.

    Parameters
    ----------
    overrides
        Keys of `weft recipes show quickstart`, such as --seed 1 or --model.dim 320.
    minutes
        About how long it takes on two processor cores; 10 unless given.
    out
        Run folder; the same command continues an interrupted run.
    serve
        Serve the model at the end; --no-serve ends after the report.
    open_browser
        Open the chat page.
    host
        Address of the server.
    port
        Port of the server.
    """
    config = assemble(recipe("quickstart"), None, overrides, minutes=minutes)
    console.print(
        Panel(
            "Raw text → tokenizer → pre-training → fine-tuning → reinforcement learning → report\n"
            f"about {format_duration(config.minutes * 60)}, everything in {out}, "
            "no download, Ctrl-C and the same command continue",
            title="weft quickstart",
            title_align="left",
        )
    )
    if serve:
        _check_port(host, port)
    try:
        summary = run(config, out)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"stopped; finished steps are kept in {out}",
            fix="run the same command again to continue",
        ) from error
    _closing_words(summary, out)
    if serve:
        _serve(out / "model", host, port, open_browser)


def run(config: Any, out: Path) -> dict[str, Any]:
    """Run every step that is not done yet and return the summary."""
    from weft.cli.quickstart.ledger import StepLedger
    from weft.cli.quickstart.steps import Steps
    from weft.cli.quickstart.summary import write_summary
    from weft.ops.machine import configure_threads, keep_freed_memory
    from weft.report.write import write_report
    from weft.spec import HardwareSpec

    with RunDirectory(out).open(config) as events:
        ledger, steps = StepLedger(out / "steps.json"), Steps(config, out)
        configure_threads()
        keep_freed_memory()
        hardware = HardwareSpec(**ledger.run("doctor", "Machine", steps.doctor)["hardware"])
        ledger.run("corpus", "Corpus", steps.corpus)
        ledger.run("tokenizer", "Tokenizer", steps.tokenizer)
        ledger.run("predict", "Prediction", lambda: steps.predict(hardware))
        ledger.run("pretrain", "Pre-training", lambda: steps.pretrain(hardware))
        ledger.run("measure_base", "Measure: pre-trained", steps.measure_base)
        ledger.run("sft", "Fine-tuning", steps.sft)
        ledger.run("measure_sft", "Measure: fine-tuned", steps.measure_sft)
        sft_seconds = ledger.durations()["sft"]
        ledger.run(
            "grpo", "Reinforcement learning (GRPO)", lambda: steps.grpo(sft_seconds=sft_seconds)
        )
        ledger.run("measure_grpo", "Measure: finished model", steps.measure_grpo)
        ledger.run("publish", "Model", steps.publish)
        summary = write_summary(out, ledger, minutes=config.minutes)
        events.emit("summary", bits_per_byte=summary["bits_per_byte"])
    write_report(out)
    return summary


def _closing_words(summary: dict[str, Any], out: Path) -> None:
    scores = [
        (stage.replace("_", " "), f"{s['value']:.1%}", f"{s['low']:.1%} to {s['high']:.1%}")
        for stage, s in summary["exact_match"].items()
    ]
    console.print(table("problems never seen", ("stage", "right", "95 % interval"), scores))
    verdict = "raised" if summary["grpo_improved_beyond_interval"] else "did not clearly raise"
    total = format_duration(summary["duration_s"]["total"])
    console.print(
        f"{summary['bits_per_byte']:.3f} bits per byte on held-out text, {total} in all. "
        f"GRPO {verdict} exact match beyond the interval."
    )
    words = Text.assemble(
        "A model this small writes documentation-shaped nonsense. It shows that every stage works "
        "and what each one adds; it is no assistant.\n\n",
        ("report  ", "bold"),
        f"{out / 'report.html'}\n",
        ("model   ", "bold"),
        f"{out / 'model'}   (a Hugging Face folder)\n\nNext:\n",
        f"  a real checkpoint   {_program()} serve path/to/Qwen3-0.6B\n",
        f"  a run on a GPU      {_program()} train pretrain-10m --device cuda "
        f"--corpus {out / 'corpus'} --tokenizer {out / 'tokenizer'} --out runs/big\n",
        f"  a cluster plan      {_program()} plan search qwen3-8b --hw H100x64\n",
    )
    console.print(Panel(words, title="done", title_align="left"))


def _program() -> str:
    """Return how this program was called: `weft`, or its path where that is not on the PATH."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "weft" and shutil.which("weft") is None else "weft"


def _check_port(host: str, port: int) -> None:
    """Find out now, not after ten minutes, that the port is taken."""
    from weft.serve.limits import ServerConfig
    from weft.serve.server import bind

    bind(ServerConfig(host=host, port=port)).close()


def _serve(model: Path, host: str, port: int, open_browser: bool) -> None:
    from weft.cli.serve import announce, run
    from weft.engine.config import EngineConfig
    from weft.serve.limits import ServerConfig

    def ready(url: str) -> None:
        announce(url, "quickstart")
        if open_browser:
            webbrowser.open(url)

    config = ServerConfig(host=host, port=port)
    run(model, EngineConfig(max_num_sequences=32), config, name="quickstart", on_ready=ready)
