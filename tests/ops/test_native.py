"""Building and loading the C library: caching, fallbacks, and what is said about it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from weft.ops import rms_norm
from weft.ops.native import bindings, build, native_status

needs_compiler = pytest.mark.skipif(build.find_compiler() is None, reason="no C compiler")


@pytest.fixture
def fresh_loader():
    """Forget the loaded library before and after."""
    caches = (bindings.load_library, bindings._load)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_without_a_compiler_torch_runs_and_the_status_says_so(monkeypatch, fresh_loader):
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    assert native_status().startswith("C kernels off, torch runs instead: no C compiler found")
    x = torch.randn(3, 8)
    torch.testing.assert_close(
        rms_norm(x, torch.ones(8), 0.0), x / x.square().mean(-1, keepdim=True).sqrt()
    )


def test_a_broken_compiler_is_not_an_error(monkeypatch, fresh_loader, tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'fatal error: broken' >&2\nexit 1\n", encoding="utf-8")
    compiler.chmod(0o755)
    monkeypatch.setattr(build, "find_compiler", lambda: str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "failed: fatal error: broken" in native_status()
    assert rms_norm(torch.ones(1, 4), torch.ones(4), 0.0).tolist() == [[1.0] * 4]


@needs_compiler
def test_status_names_the_library():
    assert native_status().startswith("C kernels on (")


@needs_compiler
def test_library_is_built_once_and_then_found(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # One kernel is enough: the test above loads the library of all of them.
    few = [path for path in build.source_files() if path.suffix == ".h" or path.stem == "gated"]
    monkeypatch.setattr(build, "source_files", lambda: few)
    path = build.build_library(threads=False)
    assert path.parent == tmp_path / "weft" / "native"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert build.build_library(threads=False) == path


def test_name_changes_with_flags_and_processor(monkeypatch, tmp_path):
    compiler = tmp_path / "cc"
    compiler.touch()
    one = build._build_key(str(compiler), ("-O3",))
    assert one == build._build_key(str(compiler), ("-O3",))
    assert one != build._build_key(str(compiler), ("-O2",))
    monkeypatch.setattr(build, "_cpu_features", lambda: "another processor")
    assert one != build._build_key(str(compiler), ("-O3",))


@needs_compiler
def test_an_unwritable_cache_falls_back_to_the_temporary_folder(monkeypatch, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(build.tempfile, "gettempdir", lambda: str(tmp_path))
    compiled: list[str] = []
    monkeypatch.setattr(build, "_compile", lambda *args: compiled.append(args[2]) or args[2])
    path = build.build_library(threads=False)
    assert path.parent.parent == tmp_path
    assert compiled == [path]


def test_nowhere_to_write_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "find_compiler", lambda: sys.executable)
    monkeypatch.setattr(build, "_cache_folders", list)
    with pytest.raises(build.BuildError, match="no folder to build in"):
        build.build_library(threads=False)


@needs_compiler
def test_no_second_openmp_runtime_is_loaded():
    program = (
        "import torch; from weft.ops.native import native_status; print(native_status());"
        "print(len({l.split()[-1] for l in open('/proc/self/maps') if 'gomp' in l or 'omp5' in l}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    status, num_runtimes = done.stdout.splitlines()
    assert status.startswith("C kernels on")
    assert int(num_runtimes) <= 1


def test_small_work_stays_on_one_thread(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert bindings.num_threads(100) == 1
    assert bindings.num_threads(3 * bindings.ELEMENTS_PER_THREAD) == 3
    assert bindings.num_threads(10**9) == 8
