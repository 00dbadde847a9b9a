from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from weft.core.errors import ConfigError, InputFileError, Interrupted, MissingExtraError
from weft.core.events import read_events
from weft.core.runs import RunDirectory


@dataclass(frozen=True)
class Config:
    """A configuration."""

    steps: int = 1
    name: str = "a"


def test_a_run_leaves_configuration_environment_events_and_state(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with run.open(Config()) as events:
        assert run.state == "running"
        events.emit("step", step=1, loss=2.5)
    assert run.state == "done"
    assert json.loads((run.path / "env.json").read_text())["num_cpus"] >= 1
    assert run.load_config(Config(steps=9)) == Config()
    assert [event["loss"] for event in read_events(run.metrics_path, "step")] == [2.5]


def test_a_continued_run_appends_and_its_clock_goes_on(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with run.open(Config()) as events:
        events.emit("step", step=1, time_s=100.0)
    with run.open(Config()) as events:
        second = events.emit("step", step=2)
    assert [event["step"] for event in read_events(run.metrics_path)] == [1, 2]
    assert second["time_s"] >= 100.0


def test_another_configuration_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with run.open(Config()):
        pass
    with pytest.raises(ConfigError, match="differs in: steps"), run.open(Config(steps=2)):
        pass


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (Interrupted("stopped after step 3"), "interrupted"),
        (ValueError("x"), "failed"),
    ],
)
def test_the_end_is_recorded_whatever_happens(
    tmp_path: Path, error: BaseException, state: str
) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(type(error)), run.open(Config()):
        raise error
    assert run.state == state


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with (
        pytest.raises(InputFileError, match="is a file"),
        RunDirectory(tmp_path / "run").open(Config()),
    ):
        pass


def test_a_half_written_last_event_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "a", "time_s": 1}\n{"kind": "b", "ti')
    assert [event["kind"] for event in read_events(tmp_path / "metrics.jsonl")] == ["a"]


def test_numbers_that_json_lacks_are_written_as_text(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with run.open(Config()) as events:
        events.emit("step", loss=float("nan"))
    assert next(read_events(run.metrics_path, "step"))["loss"] == "nan"


@dataclass(frozen=True)
class Watched:
    """A configuration that asks for TensorBoard."""

    tensorboard: bool = True


def test_tensorboard_gets_the_numbers_of_events_that_have_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("closed", 0.0, 0))

    module = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setattr("weft.core.events.require", lambda name, extra: module)
    with RunDirectory(tmp_path).open(Watched()) as events:
        events.emit("note", text="no step")
        events.emit("step", step=3, loss=2.5, text="words", skipped=True)
    assert written == [("step/loss", 2.5, 3), ("closed", 0.0, 0)]


def test_tensorboard_that_is_missing_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = RunDirectory(tmp_path)
    with pytest.raises(MissingExtraError, match=r"weft\[tensorboard\]"), run.open(Watched()):
        pass
    assert run.state == "failed"
