"""``weft doctor``: what this machine is and what will run on it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from weft.core.console import console, format_bytes, table
from weft.core.environment import describe_environment
from weft.core.files import free_bytes, write_json
from weft.spec import HardwareSpec

MIN_MEMORY_BYTES = 2 * 2**30
MIN_DISK_BYTES = 500 * 2**20


def doctor(
    *, json_output: Annotated[bool, Parameter(name="--json")] = False, out: Path | None = None
) -> None:
    """Check this machine and say what will run on it.

    Parameters
    ----------
    json_output
        Print JSON instead of a table.
    out
        Also write the result to this file.
    """
    result = examine()
    if out is not None:
        write_json(out, result)
    if json_output:
        console.print(json.dumps(result, indent=2), markup=False, soft_wrap=True)
    else:
        console.print(table("weft doctor", ("what", "found"), rows(result), numbers=False))
        for warning in result["warnings"]:
            console.print(f"warning: {warning}", markup=False)


def examine(*, budget_s: float = 2.0) -> dict[str, Any]:
    """Measure the machine and return facts, peaks and warnings."""
    from weft.dist.compat import check_torch_version
    from weft.ops.machine import configure_threads, measure_peaks
    from weft.ops.native import native_status

    check_torch_version()
    num_threads = configure_threads()
    hardware = measure_peaks(budget_s)
    environment = describe_environment()
    result = {
        "environment": environment,
        "hardware": asdict(hardware),
        "num_threads": num_threads,
        "native_kernels": native_status(),
        "cuda": _cuda(),
        "free_disk_bytes": free_bytes(Path.cwd()),
    }
    return {**result, "warnings": _warnings(result, hardware)}


def rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the table's rows."""
    environment, hardware = result["environment"], result["hardware"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    peaks = ", ".join(
        f"{name} {flops / 1e9:,.0f} GFLOP/s" for name, flops in hardware["matmul_flops"].items()
    )
    return [
        ("weft", f"{environment['weft']} on Python {environment['python']}"),
        ("packages", packages),
        ("processor", f"{environment['cpu']}, {environment['num_cpus']} cores"),
        ("threads used", str(result["num_threads"])),
        ("matmul peak", peaks),
        ("memory", format_bytes(environment["memory_bytes"])),
        ("memory read", f"{hardware['memory_bandwidth'] / 1e9:.1f} GB/s"),
        ("free disk", format_bytes(result["free_disk_bytes"])),
        ("C kernels", result["native_kernels"]),
        ("GPU", result["cuda"]),
    ]


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none; the CPU is used"
    return torch.cuda.get_device_name()


def _warnings(result: dict[str, Any], hardware: HardwareSpec) -> list[str]:
    warnings = []
    if hardware.memory_bytes < MIN_MEMORY_BYTES:
        warnings.append(
            f"{format_bytes(hardware.memory_bytes)} of memory; the quick start needs 2 GiB"
        )
    if result["free_disk_bytes"] < MIN_DISK_BYTES:
        warnings.append(
            f"{format_bytes(result['free_disk_bytes'])} of disk are free; the quick start "
            "writes about 300 MiB"
        )
    if result["num_threads"] < result["environment"]["num_cpus"]:
        warnings.append("other programs keep this machine busy; fewer threads are used")
    return warnings
