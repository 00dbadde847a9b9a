"""What was measured on the machine at hand, kept as a file that plans read.

``weft plan calibrate`` writes it; a plan that names ``this-machine`` (or the file) uses its device,
graded ``measured``, and its prices of training and serving steps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from weft.core.errors import ConfigError, InputFileError
from weft.core.files import read_json, write_json
from weft.plan.machine_training import MachinePrices
from weft.plan.simulator.runner import LinearStepTime
from weft.spec import HardwareSpec

THIS_MACHINE = "this-machine"


@dataclass(frozen=True)
class MachineMemory:
    """Of a training process.

    Attributes:
        base_bytes: With libraries and nothing else.
        slack: Measured over counted growth.
    """

    base_bytes: int
    slack: float = 1.0


@dataclass(frozen=True)
class Calibration:
    """Everything measured.

    Attributes:
        hardware: Peaks and bandwidth.
        training: Prices of training steps by precision.
        memory: Of a training process.
        serving: Step times of an engine by the model they were measured on.
        notes: When, how long, errors on the measured points.
    """

    hardware: HardwareSpec
    training: Mapping[str, MachinePrices] = field(default_factory=dict)
    memory: MachineMemory | None = None
    serving: Mapping[str, LinearStepTime] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def prices(self, precision: str) -> MachinePrices:
        """Return the prices of a precision.

        Raises:
            ConfigError: it was not measured.
        """
        if precision not in self.training:
            raise ConfigError(
                f"training in {precision} was not measured here",
                fix=f"measured: {', '.join(self.training) or 'nothing'}; run weft plan calibrate",
            )
        return self.training[precision]


def default_path() -> Path:
    """Return where the calibration of this machine lies, in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "weft" / "this-machine.json"


def save_calibration(calibration: Calibration, path: Path | None = None) -> Path:
    """Write a calibration and return where."""
    path = path or default_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(calibration))
    return path


def load_calibration(path: Path | None = None) -> Calibration:
    """Read a calibration.

    Raises:
        InputFileError: there is none, or the file holds something else.
    """
    path = path or default_path()
    if not path.exists():
        raise InputFileError(f"there is no {path}", fix="run: weft plan calibrate")
    try:
        values = read_json(path)
        return _calibration(values)
    except (TypeError, KeyError, AttributeError) as error:
        raise InputFileError(
            f"{path} is no calibration: {error}", fix="run: weft plan calibrate"
        ) from error


def _calibration(values: dict[str, Any]) -> Calibration:
    memory = values.get("memory")
    return Calibration(
        hardware=HardwareSpec(**values["hardware"]),
        training={name: _prices(one) for name, one in values["training"].items()},
        memory=None if memory is None else MachineMemory(**memory),
        serving={name: LinearStepTime(**one) for name, one in values["serving"].items()},
        notes=values.get("notes", {}),
    )


def _prices(values: dict[str, Any]) -> MachinePrices:
    return MachinePrices(tuple(values["values"]), values["residual"])
