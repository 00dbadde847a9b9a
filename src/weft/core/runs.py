"""Run directories: every command that computes leaves one behind.

::

    RUN/
      config.toml     the complete configuration the run was started with
      env.json        machine, Python and package versions
      metrics.jsonl   every event (see weft.core.events)
      status.json     {"state": "running" | "done" | "failed" | "interrupted", ...}
      checkpoints/    what the command produces
      report.html     made by `weft report RUN`
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from weft.core import config as configs
from weft.core.environment import describe_environment
from weft.core.errors import ConfigError, InputFileError, Interrupted
from weft.core.events import Events, JsonlSink, TensorBoardSink, read_events
from weft.core.files import disk_errors, read_json, write_atomic, write_json

ConfigT = TypeVar("ConfigT")


class RunDirectory:
    """One run on disk: configuration, environment, events and results."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def config_path(self) -> Path:
        return self.path / "config.toml"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def state(self) -> str:
        """``"new"``, ``"running"``, ``"done"``, ``"failed"`` or ``"interrupted"``."""
        file = self.path / "status.json"
        return str(read_json(file)["state"]) if file.exists() else "new"

    @contextlib.contextmanager
    def open(self, config: Any) -> Iterator[Events]:
        """Start or continue the run; records how it ended whatever happens.

        A configuration with a true ``tensorboard`` field writes its metrics there too.

        Raises:
            ConfigError: the folder holds a run with another configuration.
            ResourceError: the disk is full or not writable.
            MissingExtraError: TensorBoard is asked for and not installed.
        """
        self._claim(config)
        write_json(self.path / "env.json", describe_environment())
        offset_s = max((e["time_s"] for e in read_events(self.metrics_path)), default=0.0)
        self._set_state("running")
        with Events(JsonlSink(self.metrics_path), offset_s=offset_s) as events:
            try:
                if getattr(config, "tensorboard", False):
                    events.add(TensorBoardSink(self.path / "tensorboard"))
                yield events
            except (KeyboardInterrupt, Interrupted):
                self._set_state("interrupted")
                raise
            except BaseException as error:
                # A full disk must not hide the error that is on its way up.
                with contextlib.suppress(Exception):
                    self._set_state("failed", error=f"{type(error).__name__}: {error}")
                raise
        self._set_state("done")

    def load_config(self, base: ConfigT) -> ConfigT:
        """Return the configuration this run was started with."""
        return configs.load_toml(base, self.config_path)

    def _claim(self, config: Any) -> None:
        text = configs.to_toml(config)
        if self.path.is_file():
            raise InputFileError(f"{self.path} is a file; a run needs a folder", fix="use --out")
        if self.config_path.exists() and self.config_path.read_text(encoding="utf-8") != text:
            changed = _changed_keys(self.config_path, config)
            raise ConfigError(
                f"{self.path} holds a run with another configuration (differs in: {changed})",
                fix="use another folder with --out, delete this one, "
                "or repeat the old command to continue it",
            )
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        write_atomic(self.config_path, text)

    def _set_state(self, state: str, **details: Any) -> None:
        write_json(
            self.path / "status.json",
            {"state": state, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **details},
        )


def _changed_keys(path: Path, config: Any) -> str:
    try:
        old = configs.load_toml(config, path)
    except ConfigError:
        return "keys of another version"
    before = {field.key: field.value for field in configs.fields(old)}
    after = {field.key: field.value for field in configs.fields(config)}
    keys = [key for key, value in after.items() if before.get(key) != value]
    return ", ".join(keys[:5]) or "comments only"
