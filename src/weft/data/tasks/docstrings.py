"""Questions about the standard library, answered by its own docstrings.

"What does os.path.join do?" -> the first sentence of its docstring. Made for demonstrations: a
small model learns to answer in the style of documentation.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from weft.data.permutation import Permutation, derive_seed
from weft.data.sources.docstrings import Docstring, iter_docstrings
from weft.data.sources.stdlib import StandardLibrary
from weft.data.tasks.task import Problem, Split, split_of

_QUESTIONS = {
    "function": "What does {name} do?",
    "class": "What is {name}?",
    "module": "What is the module {name} for?",
}
_LEFT_OUT = ("idlelib", "lib2to3", "encodings", "ntpath", "turtledemo", "distutils", "tkinter.tix")
_MIN_CHARS, _MAX_CHARS = 12, 160


@dataclass(frozen=True)
class Docstrings:
    """Public modules, classes, functions and built-ins of the running Python.

    Grading compares letters and digits only; as a reward it is far too strict for a small model.
    """

    name: str = "docstrings"

    def problems(self, split: Split, seed: int) -> Iterator[Problem]:
        """Yield each object of the split once, shuffled by ``seed``."""
        entries = _entries()
        for number in Permutation(len(entries), derive_seed(seed, self.name)):
            name, kind, answer = entries[number]
            if split_of(f"docstrings:{name}") == split:
                question = _QUESTIONS[kind].format(name=name)
                yield Problem(question, answer, {"object": name, "kind": kind})

    def grade(self, problem: Problem, text: str) -> bool:
        """Accept when the answer has the words of the docstring."""
        return _words(text) == _words(problem.answer)


def first_sentence(text: str) -> str:
    """Return the first sentence of a docstring on one line.

    >>> first_sentence("Return x,\\n  e.g. 1. Then more.\\n\\nDetails")
    'Return x, e.g. 1.'
    """
    paragraph = " ".join(re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0].split())
    match = re.match(r".*?(?<!e\.g)(?<!i\.e)(?<!etc)[.!?](?=\s+[A-Z]|$)", paragraph)
    return match.group() if match else paragraph


# The library does not change while Python runs; parsing it takes a second or two.
@functools.cache
def _entries() -> tuple[tuple[str, str, str], ...]:
    found: dict[str, tuple[str, str, str]] = {}
    for entry in (*_builtin_docstrings(), *_library_docstrings()):
        name = re.sub(r"^posixpath\b", "os.path", entry.name)
        answer = first_sentence(entry.text)
        if _is_public(name) and _is_plain(answer, name):
            found.setdefault(name, (name, entry.kind, answer))
    return tuple(found[name] for name in sorted(found))


def _library_docstrings() -> Iterator[Docstring]:
    for module, source in StandardLibrary("code").modules():
        if not module.startswith(_LEFT_OUT):
            yield from iter_docstrings(source, module)


def _builtin_docstrings() -> Iterator[Docstring]:
    """Yield built-in functions, types and the types' methods, which have no source file."""
    for name, value in sorted(vars(builtins).items()):
        if isinstance(value, type):
            yield Docstring(name, "class", "", inspect.getdoc(value) or "")
            for method, member in sorted(vars(value).items()):
                if callable(member):
                    yield Docstring(f"{name}.{method}", "function", "", _own_doc(member))
        elif callable(value):
            yield Docstring(name, "function", "", inspect.getdoc(value) or "")


def _own_doc(member: Any) -> str:
    doc = getattr(member, "__doc__", None)
    return inspect.cleandoc(doc) if isinstance(doc, str) else ""


def _is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


def _is_plain(answer: str, name: str) -> bool:
    """Keep sentences: not signatures, markup, drawings or other alphabets."""
    sentence = (
        answer.endswith(".")
        and not answer.endswith("..")
        and answer[:1].isupper()
        and answer.isascii()
    )
    call = answer.startswith(f"{name.split('.')[-1]}(") or "->" in answer
    return sentence and not call and _MIN_CHARS <= len(answer) <= _MAX_CHARS


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.strip().split("\n")[0].lower())
