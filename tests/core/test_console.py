from __future__ import annotations

import io

import pytest
from rich.console import Console

from weft.core import console as module
from weft.core.console import LiveLine, table


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(module, "console", Console(file=stream, width=80, force_terminal=False))
    return stream


def test_a_pipe_gets_first_and_last_line(output: io.StringIO) -> None:
    with LiveLine("train", total=3, interval_s=60) as line:
        for step in range(1, 4):
            line.update(step, f"loss {4 - step}")
    assert output.getvalue().splitlines() == ["train:  33% loss 3", "train: 100% loss 1"]


def test_a_message_is_printed_as_it_is(output: io.StringIO) -> None:
    with LiveLine("train", total=None) as line:
        line.message("[bold]not markup[/bold]")
    assert "[bold]not markup[/bold]" in output.getvalue()


def test_tables_hold_their_cells(output: io.StringIO) -> None:
    module.console.print(table("Title", ("a", "b"), [("x", 1)]))
    assert "Title" in output.getvalue()
    assert "x" in output.getvalue()
