"""Write docs/architecture.md from what the packages say about themselves.

The floors are read from the import-linter contract in pyproject.toml, the text from the docstring
of each package's ``__init__.py`` (parsed, never imported), so the page cannot say anything that
the code does not.

    python docs/make_architecture.py          # write the page
    python docs/make_architecture.py --check  # exit 1 if it is not what would be written
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/architecture.md"

INTRODUCTION = """\
# Architecture

<!-- Written by docs/make_architecture.py from the packages' docstrings; edit those instead. -->

weft is a house with floors. A package imports from its own package and from lower floors, never
sideways and never up; `make check` and the tests enforce it with import-linter. So `train` and
`engine` stay usable alone, and joining them is the business of `align`, one floor above. Packages
marked *no* never import torch at module level: planning a cluster, tokenizing a corpus or printing
`weft --help` needs no tensor library.
"""


@dataclass(frozen=True)
class Package:
    """One package of the house: ``summary`` and ``body`` are its docstring's two parts."""

    name: str
    floor: int
    torch: bool
    summary: str
    body: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    options = parser.parse_args()
    text = render()
    if options.check:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


def render() -> str:
    """Return the page."""
    packages = list(read_packages())
    lines = [INTRODUCTION, "| Floor | Package | torch | What it is |", "|---|---|---|---|"]
    lines += [
        f"| {p.floor} | [`{p.name}`](#{anchor(p)}) | {'may' if p.torch else 'no'} | {p.summary} |"
        for p in reversed(packages)
    ]
    for package in packages:
        lines += ["", f"## Floor {package.floor}: `{package.name}`", "", package.summary]
        if package.body:
            lines += ["", to_markdown(package.body)]
        for name, docstring in subpackages(package.name):
            lines += ["", f"### `{name}`", "", to_markdown(docstring)]
    return "\n".join(lines) + "\n"


def read_packages() -> Iterator[Package]:
    """Yield the packages from the lowest floor up, in the contract's order.

    Raises:
        ValueError: a docstring names another floor than the contract.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    without_torch = next(
        c["source_modules"] for c in contracts if c.get("forbidden_modules") == ["torch"]
    )
    for floor, layer in enumerate(reversed(layers)):
        for module in re.split(r"\s*[|:]\s*", layer):
            name = module.removeprefix("weft.")
            stated, summary, body = split(read_docstring(name))
            if stated is not None and stated != floor:
                raise ValueError(f"{module} says it is on floor {stated}; pyproject.toml: {floor}")
            yield Package(name, floor, module not in without_torch, summary, body)


def read_docstring(name: str) -> str:
    """Return the docstring of a package given as ``ops`` or ``ops.loss``."""
    path = ROOT / "src/weft" / name.replace(".", "/") / "__init__.py"
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def subpackages(name: str) -> Iterator[tuple[str, str]]:
    """Yield name and docstring of the packages inside a package."""
    for path in sorted((ROOT / "src/weft" / name).glob("*/__init__.py")):
        yield f"{name}.{path.parent.name}", read_docstring(f"{name}.{path.parent.name}")


def split(docstring: str) -> tuple[int | None, str, str]:
    """Split a docstring into the floor it states (or none), its first paragraph and the rest."""
    first, _, body = docstring.partition("\n\n")
    match = re.match(r"Floor (\d+): ", first)
    summary = " ".join(first[match.end() :].split() if match else first.split())
    return (int(match[1]) if match else None), to_markdown(sentence_case(summary)), body.strip("\n")


def sentence_case(text: str) -> str:
    """Return a text whose first letter is a capital."""
    return text[:1].upper() + text[1:]


def anchor(package: Package) -> str:
    """Return the anchor of a package's heading, as Markdown renderers make it."""
    return f"floor-{package.floor}-{package.name}"


def to_markdown(text: str) -> str:
    """Turn the little reStructuredText that docstrings use into Markdown, block by block.

    Double back-quotes become single ones, two-column tables lists, literal blocks fenced blocks;
    a line with an indented block under it becomes a paragraph that begins with the line in bold.
    """
    out, literal = [], False
    for block in text.split("\n\n"):
        lines = block.strip("\n").splitlines()
        if literal:
            out.append("\n".join(["```text", *dedent(lines), "```"]))
            literal = False
            continue
        literal = lines[-1].endswith("::")
        if literal:
            lines[-1] = lines[-1].removesuffix(":")
        block = re.sub(r"``(.+?)``", r"`\1`", "\n".join(lines), flags=re.DOTALL)
        lines = from_table(block.splitlines())
        # Names are aligned in the source; on the page a colon stands between name and text.
        lines = [re.sub(r"^(- .*?`)\s{2,}", r"\1: ", line) for line in lines]
        out.append(from_definition(lines))
    return "\n\n".join(block for block in out if block != ":")


def from_table(lines: list[str]) -> list[str]:
    """Turn a two-column table into a list; return other blocks unchanged."""
    if not re.fullmatch(r"=+ +=+", lines[0]):
        return lines
    return [f"- {line}" for line in lines if not line.startswith("=")]


def from_definition(lines: list[str]) -> str:
    """Turn a term with an indented definition into a paragraph; return other blocks unchanged."""
    is_definition = (
        len(lines) > 1
        and not lines[0].startswith((" ", "-"))
        and all(line.startswith("    ") for line in lines[1:])
    )
    if not is_definition:
        return "\n".join(lines)
    return f"**{lines[0].rstrip(':.')}.** " + "\n".join(line.strip() for line in lines[1:])


def dedent(lines: list[str]) -> list[str]:
    """Remove the indentation that all lines share."""
    width = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return [line[width:] for line in lines]


if __name__ == "__main__":
    sys.exit(main())
