"""What machine, Python and packages a run used: the content of ``env.json``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "tokenizers", "safetensors", "transformers", "triton")


def describe_environment() -> dict[str, Any]:
    """Return the facts that decide speed and numbers; loads no heavy package."""
    return {
        "weft": _version("weft"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "num_cpus": available_cpus(),
        "memory_bytes": total_memory_bytes(),
        "packages": {name: v for name in PACKAGES if (v := _version(name)) is not None},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def cpu_name() -> str:
    """Return the processor's model name, or the architecture where it is not told."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def available_cpus() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory_bytes() -> int:
    """Return the machine's memory, lowered to the control group's limit where there is one."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit_file in ("/sys/fs/cgroup/memory.max",):
        try:
            text = Path(limit_file).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def peak_memory_bytes() -> int:
    """Return the most memory this process has held so far (resident set)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
