"""Docstrings of Python files, read by parsing and never by importing."""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Iterator
from typing import Literal, NamedTuple

Kind = Literal["module", "class", "function"]


class Docstring(NamedTuple):
    """One documented object: dotted name, kind, signature (functions) and cleaned text."""

    name: str
    kind: Kind
    signature: str
    text: str


def iter_docstrings(source: str, module: str) -> Iterator[Docstring]:
    """Yield the docstrings of a module's source in file order; none if it does not parse."""
    try:
        with warnings.catch_warnings():
            # Old code has invalid escapes; they are the business of that code's authors.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    text = _docstring(tree)
    if text:
        yield Docstring(module, "module", "", text)
    yield from _walk(tree, module)


def _walk(node: ast.AST, prefix: str) -> Iterator[Docstring]:
    """Visit definitions at module and class level, also behind ``if`` and ``try``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            name = f"{prefix}.{child.name}"
            text = _docstring(child)
            if text:
                yield Docstring(name, "class", "", text)
            yield from _walk(child, name)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            text = _docstring(child)
            if text:
                signature = f"({ast.unparse(child.args)})"
                yield Docstring(f"{prefix}.{child.name}", "function", signature, text)
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _walk(child, prefix)


def _docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.AST,
) -> str:
    assert isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    return inspect.cleandoc(ast.get_docstring(node, clean=False) or "").strip()
