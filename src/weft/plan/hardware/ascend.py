"""Read the platform files (``.ini``) that Ascend toolkits ship per chip.

The peak is not in the file; it follows from the matrix unit: cores times clock times
``m·k·n`` multiply-adds per cycle (row PM25: 24 · 1.85 GHz · 16³ · 2 = 363.7 TFLOP/s).
"""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

from weft.core.errors import InputFileError
from weft.spec.hardware import HardwareSpec


@dataclass(frozen=True)
class AscendPlatform:
    """What a platform file says.

    Attributes:
        name: Chip version.
        num_cube_cores: Matrix units.
        clock_hz: Of the matrix units.
        cube: Rows, inner width and columns of one step.
        l2_bytes: Second-level cache.
        memory_bytes: Device memory; 0 where the file has none.
        memory_bandwidth: Bytes per second; 0 where the file has none.
    """

    name: str
    num_cube_cores: int
    clock_hz: float
    cube: tuple[int, int, int]
    l2_bytes: int
    memory_bytes: int = 0
    memory_bandwidth: float = 0.0

    @property
    def peak_flops(self) -> float:
        """FLOP/s of float16 products.

        >>> cube = (16, 16, 16)
        >>> round(AscendPlatform("910B1", 24, 1850e6, cube, 201_326_592).peak_flops / 1e12, 1)
        363.7
        """
        rows, inner, columns = self.cube
        return 2.0 * self.num_cube_cores * self.clock_hz * rows * inner * columns

    def hardware(self) -> HardwareSpec:
        """Return the chip as the planner sees it; what the file lacks is 0 and says so."""
        missing = "not in the platform file"
        return HardwareSpec(
            name=self.name,
            matmul_flops={"float16": self.peak_flops, "bfloat16": self.peak_flops},
            memory_bytes=self.memory_bytes,
            memory_bandwidth=self.memory_bandwidth,
            grade="spec",
            sources={
                "matmul_flops": "platform file: cube cores x clock x cube size x 2",
                "memory_bytes": "platform file" if self.memory_bytes else missing,
                "memory_bandwidth": "platform file" if self.memory_bandwidth else missing,
            },
        )


def read_platform_file(path: Path) -> AscendPlatform:
    """Read one platform file.

    Raises:
        InputFileError: no such file, no ini file, or a field is missing or no number; says which.
    """
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read_string(path.read_text("utf-8"))
    except OSError as error:
        raise InputFileError(f"{path} cannot be read: {error.strerror}") from error
    except (configparser.Error, UnicodeDecodeError) as error:
        raise InputFileError(f"{path} is no platform file: {error}") from error
    clock_mhz = _number(parser, path, "AICoreSpec", "cube_freq")
    return AscendPlatform(
        name=parser.get("version", "SoC_version", fallback=path.stem),
        num_cube_cores=int(_number(parser, path, "SoCInfo", "cube_core_cnt", other="ai_core_cnt")),
        clock_hz=clock_mhz * 1e6,
        cube=(
            int(_number(parser, path, "AICoreSpec", "cube_m_size")),
            int(_number(parser, path, "AICoreSpec", "cube_k_size")),
            int(_number(parser, path, "AICoreSpec", "cube_n_size")),
        ),
        l2_bytes=int(_number(parser, path, "SoCInfo", "l2_size")),
        memory_bytes=int(_number(parser, path, "SoCInfo", "memory_size", default=0.0)),
    )


def _number(
    parser: configparser.ConfigParser,
    path: Path,
    section: str,
    key: str,
    *,
    other: str | None = None,
    default: float | None = None,
) -> float:
    text = parser.get(section, key, fallback=None)
    if text is None and other is not None:
        text = parser.get(section, other, fallback=None)
    if text is None:
        if default is not None:
            return default
        raise InputFileError(
            f"{path} has no {key!r} in section [{section}]",
            fix="is it a platform file of an Ascend toolkit (data/platform_config/*.ini)?",
        )
    try:
        return float(text)
    except ValueError as error:
        raise InputFileError(f"{path}: {key} is {text!r}, which is no number") from error
