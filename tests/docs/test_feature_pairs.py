"""The table of feature pairs says what the tests and the engine say, and has no hole."""

from __future__ import annotations

import importlib.util
import sys
from itertools import combinations
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.markdown import ROOT
from tests.engine.features.support import FEATURES

# Every two of these are tested together or refused.
CORE = FEATURES[:10]


@pytest.fixture(scope="module")
def make_feature_pairs() -> ModuleType:
    path = ROOT / "docs/make_feature_pairs.py"
    spec = importlib.util.spec_from_file_location("make_feature_pairs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_committed_page_is_what_tests_and_engine_say(make_feature_pairs):
    page = make_feature_pairs.PAGE.read_text(encoding="utf-8")
    assert page == make_feature_pairs.render(), (
        "docs/concepts/feature-pairs.md is out of date; run: python docs/make_feature_pairs.py"
    )


def test_tests_and_page_tell_the_same_features_apart(make_feature_pairs):
    assert tuple(make_feature_pairs.FEATURES) == FEATURES


@pytest.mark.parametrize("pair", list(combinations(CORE, 2)), ids="-".join)
def test_every_pair_of_core_features_is_tested_or_refused(make_feature_pairs, pair):
    tests = make_feature_pairs.tests_by_pair(make_feature_pairs.marked_tests())
    assert frozenset(pair) in tests.keys() | make_feature_pairs.refused_pairs()


def test_marks_are_read_from_functions_and_modules(
    make_feature_pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(make_feature_pairs, "ROOT", tmp_path)
    (tmp_path / "test_one.py").write_text(
        "import pytest\n"
        'pytestmark = [pytest.mark.dist, pytest.mark.pair("cache", "chunking")]\n'
        '@pytest.mark.pair("cache", "overlap")\n'
        "def test_a(): ...\n"
        "def test_b(): ...\n"
        "def helper(): ...\n"
    )
    found = {t.name: t.pairs for t in make_feature_pairs.marked_tests(tmp_path)}
    both = frozenset(("cache", "chunking"))
    assert found == {"test_a": (both, frozenset(("cache", "overlap"))), "test_b": (both,)}


def test_cases_of_a_listed_parametrization_are_tests_of_their_own(
    make_feature_pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(make_feature_pairs, "ROOT", tmp_path)
    (tmp_path / "test_one.py").write_text(
        "import pytest\n"
        'FEATURE_PAIRS = (("cache", "chunking"), ("cache", "overlap"))\n'
        '@pytest.mark.parametrize("pair", FEATURE_PAIRS, ids="-".join)\n'
        "def test_a(pair): ...\n"
        "def test_b(): ...\n"
    )
    found = {t.name: t.pairs for t in make_feature_pairs.marked_tests(tmp_path)}
    assert found == {
        "test_a[cache-chunking]": (frozenset(("cache", "chunking")),),
        "test_a[cache-overlap]": (frozenset(("cache", "overlap")),),
    }


@pytest.mark.parametrize("names", ['"cache"', '"cache", "cache"', '"cache", "cash"'])
def test_a_pair_that_is_none_is_refused(make_feature_pairs, tmp_path: Path, names: str):
    (tmp_path / "test_one.py").write_text(f"@pytest.mark.pair({names})\ndef test_a(): ...\n")
    with pytest.raises(ValueError, match="a pair names two of"):
        list(make_feature_pairs.marked_tests(tmp_path))
    (tmp_path / "test_one.py").write_text(f"FEATURE_PAIRS = (({names},),)\n")
    with pytest.raises(ValueError, match="a pair names two of"):
        list(make_feature_pairs.marked_tests(tmp_path))
