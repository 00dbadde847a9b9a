"""Write docs/concepts/feature-pairs.md: which features of the engine are tested together.

Tests name their pair with ``@pytest.mark.pair("overlap", "grammar")``, or many in a literal
``FEATURE_PAIRS`` that ``@pytest.mark.parametrize("pair", FEATURE_PAIRS)`` gives them one by one.
Both are read from the source of the tests and the refusals from ``weft.engine.features``, so the
page cannot claim a pair that no test holds and cannot miss one that is refused.

    python docs/make_feature_pairs.py          # write the page
    python docs/make_feature_pairs.py --check  # exit 1 if it is not what would be written
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from weft.engine.features import REFUSED

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/concepts/feature-pairs.md"
TESTS = ROOT / "tests"

FEATURES = {
    "batching": "requests served together",
    "chunking": "prompts computed in pieces",
    "cache": "prefixes reused",
    "preemption": "blocks given up and computed again",
    "offload": "blocks kept on the host and on disk",
    "speculation": "several tokens guessed and verified per step",
    "adapters": "LoRA adapters, several in a batch",
    "grammar": "structured output",
    "quantized_kv": "keys and values in 8 bits",
    "tensor_parallel": "one model over several processes",
    "overlap": "the next step planned while one runs",
    "deterministic": "the same bits however scheduled",
    "states": "recurrent states in place of keys and values",
    "windows": "layers that look back a window",
    "fork": "samples and beams that share a prefix, copied on write",
    "pause": "pausing, sleeping, new weights",
}
"""What is told apart, in the order of the table."""

INTRODUCTION = """\
# Features in pairs

<!-- Written by docs/make_feature_pairs.py from the tests' marks; edit those instead. -->

Features of a serving engine break in pairs: a prefix cache that is right and chunked prefill that
is right can be wrong together. Here every pair is either tested, the number says by how many tests
(each serves requests with and without and compares tokens and log-probabilities), or it is refused
when the engine is built, with the reason below. An empty cell is a pair without a test of its own.
"""

Pair = frozenset[str]


@dataclass(frozen=True)
class Marked:
    """One test and the pairs it names."""

    file: str
    name: str
    pairs: tuple[Pair, ...]


def marked_tests(folder: Path = TESTS) -> Iterator[Marked]:
    """Read the marks of all tests below a folder, without importing them."""
    for path in sorted(folder.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.pair(" not in text and "FEATURE_PAIRS" not in text:
            continue
        tree = ast.parse(text)
        module_pairs = _pytestmark(tree)
        listed = _listed(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                own = tuple(pair for mark in node.decorator_list for pair in _pairs(mark))
                file = path.relative_to(ROOT).as_posix()
                if own or module_pairs:
                    yield Marked(file, node.name, (*module_pairs, *own))
                if any(_takes_listed(mark) for mark in node.decorator_list):
                    for pair in listed:
                        case = f"{node.name}[{'-'.join(sorted(pair))}]"
                        yield Marked(file, case, (pair,))


def _pytestmark(tree: ast.Module) -> tuple[Pair, ...]:
    marks = _assigned(tree, "pytestmark")
    return tuple(pair for value in marks for mark in ast.walk(value) for pair in _pairs(mark))


def _listed(tree: ast.Module) -> tuple[Pair, ...]:
    lists = [ast.literal_eval(value) for value in _assigned(tree, "FEATURE_PAIRS")]
    return tuple(_pair(names) for pairs in lists for names in pairs)


def _assigned(tree: ast.Module, name: str) -> list[ast.expr]:
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    return [node.value for node in assigned if ast.unparse(node.targets[0]) == name]


def _takes_listed(mark: ast.expr) -> bool:
    return isinstance(mark, ast.Call) and "FEATURE_PAIRS" in map(ast.unparse, mark.args)


def _pairs(mark: ast.AST) -> Iterator[Pair]:
    is_pair = (
        isinstance(mark, ast.Call)
        and isinstance(mark.func, ast.Attribute)
        and mark.func.attr == "pair"
    )
    if not is_pair:
        return
    assert isinstance(mark, ast.Call)
    yield _pair([ast.literal_eval(argument) for argument in mark.args])


def _pair(names: Sequence[str]) -> Pair:
    if len(set(names)) != 2 or not set(names) <= set(FEATURES):
        raise ValueError(f"a pair names two of {', '.join(FEATURES)}, not {list(names)}")
    return frozenset(names)


def tests_by_pair(tests: Iterator[Marked]) -> dict[Pair, list[Marked]]:
    """Collect the tests of every pair."""
    found: dict[Pair, list[Marked]] = defaultdict(list)
    for test in tests:
        for pair in dict.fromkeys(test.pairs):
            found[pair].append(test)
    return found


def refused_pairs() -> set[Pair]:
    """Return the pairs of the table that the engine refuses."""
    return {frozenset(pair) for pair in REFUSED} & {
        frozenset(pair) for pair in combinations(FEATURES, 2)
    }


def render() -> str:
    """Return the page."""
    tests = tests_by_pair(marked_tests())
    refused = refused_pairs()
    names = list(FEATURES)
    lines = [INTRODUCTION, "| | " + " | ".join(str(i + 1) for i in range(len(names))) + " |"]
    lines.append("|---|" + "---|" * len(names))
    for row, first in enumerate(names):
        cells = [_cell(frozenset((first, second)), tests, refused) for second in names[:row]]
        padding = ["·", *[""] * (len(names) - row - 1)]
        lines.append(f"| {row + 1} {_words(first)} | " + " | ".join([*cells, *padding]) + " |")
    lines += ["", "## The features", "", "| | is | tests |", "|---|---|---|"]
    for index, (name, meaning) in enumerate(FEATURES.items()):
        count = len({(t.file, t.name) for pair, own in tests.items() if name in pair for t in own})
        lines.append(f"| {index + 1} {_words(name)} | {meaning} | {count} |")
    lines += ["", "## Refused", "", *_refusals(), ""]
    return "\n".join(lines)


def _cell(pair: Pair, tests: Mapping[Pair, list[Marked]], refused: set[Pair]) -> str:
    if pair in refused:
        return "refused"
    return str(len(tests[pair])) if pair in tests else ""


def _refusals() -> Iterator[str]:
    yield "| one | with another | why | instead |"
    yield "|---|---|---|---|"
    for (first, second), refusal in REFUSED.items():
        yield f"| {_words(first)} | {_words(second)} | {refusal.reason} | {refusal.fix} |"


def _words(name: str) -> str:
    return name.replace("_", " ")


def main() -> int:
    """Write the page, or with ``--check`` say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    text = render()
    if arguments.check:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
