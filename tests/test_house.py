"""The house rules: floors, file sizes, no torch where it must not load, nothing left over."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src/weft").rglob("*.py"))
HARD_LIMIT_LINES = 800


def test_floors_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_no_file_is_over_the_hard_limit() -> None:
    files = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    long = {str(f): n for f in files if (n := len(f.read_text().splitlines())) > HARD_LIMIT_LINES}
    assert not long


def test_the_median_file_is_small() -> None:
    sizes = sorted(len(f.read_text().splitlines()) for f in SOURCES if f.name != "__init__.py")
    assert sizes[len(sizes) // 2] <= 150


def test_every_package_explains_itself() -> None:
    for init in (ROOT / "src/weft").glob("*/__init__.py"):
        docstring = ast.get_docstring(ast.parse(init.read_text()))
        assert docstring is not None, init
        assert len(docstring) > 60, init


@pytest.mark.parametrize("statement", ["import weft", "import weft.spec, weft.text, weft.sched"])
def test_torch_is_not_loaded_by(statement: str) -> None:
    _assert_no_torch(f"{statement}")


@pytest.mark.parametrize("arguments", [["--help"], ["recipes", "--help"], ["train", "--help"]])
def test_torch_is_not_loaded_by_help(arguments: list[str]) -> None:
    _assert_no_torch(f"from weft.cli.main import run; assert run({arguments!r}) == 0")


def _assert_no_torch(statement: str) -> None:
    check = f"{statement}\nimport sys\nassert 'torch' not in sys.modules, 'torch was loaded'"
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_no_pickle_is_loaded() -> None:
    pattern = re.compile(r"\btorch\.load\(|\bpickle\.load|\bpickle\.loads")
    offenders = [str(f) for f in SOURCES if pattern.search(f.read_text())]
    assert not offenders


def test_nothing_is_left_unfinished() -> None:
    words = re.compile(
        "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error"])
    )
    offenders = [str(f) for f in SOURCES if words.search(f.read_text())]
    assert not offenders
