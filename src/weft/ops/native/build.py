"""From C sources to a shared library in the user's cache.

The library's name is a hash over sources, flags, compiler and processor features, so an
upgrade or another machine on the same home directory never loads a wrong one. OpenMP calls
are compiled in but no OpenMP runtime is linked: the one torch already loaded answers them,
because two runtimes in one process compete for the processors.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

COMPILERS = ("cc", "gcc", "clang")
# No fast-math: these two only drop errno and trap flags, which nobody reads.
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
# Compilers avoid the widest registers by default, for processors that slow down in them.
WIDE_FLAG, WIDE_FEATURE = "-mprefer-vector-width=512", "avx512f"
OPENMP_FLAG = "-fopenmp"
SIMD_FLAG = "-fopenmp-simd"  # vectorisation hints only, no threads
TIMEOUT_S = 120


class BuildError(Exception):
    """The library could not be built; the message is for ``weft doctor``."""


def find_compiler() -> str | None:
    """Return the path of the system's C compiler, or none."""
    return next((path for name in COMPILERS if (path := shutil.which(name))), None)


def build_library(*, threads: bool) -> Path:
    """Return the path of the compiled library, building it if it is not cached.

    Raises:
        BuildError: No compiler, or it refused.
    """
    compiler = find_compiler()
    if compiler is None:
        raise BuildError(f"no C compiler found (looked for {', '.join(COMPILERS)})")
    wide = (WIDE_FLAG,) if WIDE_FEATURE in _cpu_features() else ()
    flags = (*FLAGS, *wide, OPENMP_FLAG if threads else SIMD_FLAG)
    name = f"weft-{_build_key(compiler, flags)}.so"
    for folder in _cache_folders():
        library = folder / name
        if library.exists():
            return library
        if _is_writable(folder):
            return _compile(compiler, flags, library)
    raise BuildError("no folder to build in: neither the cache nor the temporary one is writable")


def source_files() -> list[Path]:
    """Return the C sources and headers, in a fixed order."""
    folder = Path(__file__).parent
    return sorted([*folder.glob("*.c"), *folder.glob("*.h")])


def _build_key(compiler: str, flags: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    resolved = Path(compiler).resolve()
    for part in (str(resolved), str(resolved.stat().st_mtime_ns), *flags, _cpu_features()):
        digest.update(part.encode() + b"\0")
    for path in source_files():
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:24]


def _cpu_features() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("flags", "Features", "model name")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))


def _cache_folders() -> list[Path]:
    """Return where libraries may lie: the user's cache, then a private temporary folder."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    private = Path(tempfile.gettempdir()) / f"weft-native-{os.getuid()}"
    return [Path(cache_home) / "weft" / "native", private]


def _is_writable(folder: Path) -> bool:
    """Make the folder and return whether it is ours to write (loading code demands the former)."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK)
    except OSError:
        return False


def _compile(compiler: str, flags: tuple[str, ...], library: Path) -> Path:
    """Compile in a scratch folder beside the target, then rename: readers see all or nothing."""
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        sources = [str(path) for path in source_files() if path.suffix == ".c"]
        _run([compiler, *flags, "-c", *sources], scratch)
        objects = sorted(path.name for path in Path(scratch).glob("*.o"))
        # Without the OpenMP flag here, no runtime becomes a dependency of the library.
        _run([compiler, "-shared", "-o", library.name, *objects, "-lm"], scratch)
        os.replace(Path(scratch) / library.name, library)
    return library


def _run(command: list[str], folder: str) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} did not run: {error}") from error
    if done.returncode != 0:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)
        raise BuildError(f"{command[0]} failed: {first.strip()[:200]}")
