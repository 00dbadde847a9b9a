"""Run one command: arguments in, exit code out."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import cyclopts
from rich.text import Text

from weft.core.console import error_console
from weft.core.errors import Interrupted, WeftError

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``weft`` script."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    # Must be set before torch loads: with the default, two threads that wait for each other by
    # spinning are up to 14 times slower than one on a machine that is also doing other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from weft.cli.app import app

    try:
        app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        _complain(str(error), "`weft --help` or `weft COMMAND --help` shows what is possible")
        return EXIT_USAGE
    except Interrupted as error:
        _complain(error.message, error.fix, title="stopped")
        return error.exit_code
    except WeftError as error:
        _complain(error.message, error.fix)
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted", None, title="stopped")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`weft ... | head`): nothing is wrong with us.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _report_bug(error)
    return 0


def _complain(message: str, fix: str | None, *, title: str = "error") -> None:
    style = "yellow" if title == "stopped" else "red"
    error_console.print(Text(f"{title}: ", style=f"bold {style}") + Text(message), soft_wrap=True)
    if fix:
        error_console.print(Text("  fix: ", style="bold") + Text(fix), soft_wrap=True)


def _report_bug(error: Exception) -> int:
    """A bug of ours: one readable line, and the traceback in a file that can be sent to us."""
    handle, name = tempfile.mkstemp(prefix="weft-error-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write("command: " + " ".join(sys.argv) + "\n")
        file.write("".join(traceback.format_exception(error)))
    _complain(
        f"unexpected {type(error).__name__}: {error}",
        f"this is a bug in weft; the details are in {Path(name)}",
    )
    return EXIT_FAILURE


if __name__ == "__main__":
    main()
