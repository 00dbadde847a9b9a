"""Thoughts and answer of a reasoning model, in a stream."""

from __future__ import annotations

from typing import NamedTuple

from weft.text.parsers.tags import Piece, TagSplitter

OPENING, CLOSING = "<think>", "</think>"
"""The tags of DeepSeek-R1, Qwen3, GLM-4.5 and most others."""


class Said(NamedTuple):
    """What a piece of text adds.

    Attributes:
        reasoning: To the thoughts.
        content: To the answer.
    """

    reasoning: str = ""
    content: str = ""


class ReasoningParser:
    """Tell thoughts from the answer; white space around both is dropped.

    >>> parser = ReasoningParser()
    >>> parser.push("<think>\\n1 + 1\\n</think>\\n\\nIt is 2.")
    Said(reasoning='1 + 1', content='It is 2.')
    """

    def __init__(
        self, *, opening: str = OPENING, closing: str = CLOSING, starts_inside: bool = False
    ) -> None:
        """Take ``starts_inside`` from the prompt: some templates end with the opening tag."""
        self._splitter = TagSplitter(opening, closing, inside=starts_inside)
        self._parts = {"inside": _Trimmed(), "outside": _Trimmed()}

    def push(self, text: str) -> Said:
        """Add text; return what it adds to either part."""
        return self._said(self._splitter.push(text))

    def flush(self) -> Said:
        """Return what was held back; the stream has ended."""
        return self._said(self._splitter.flush())

    def _said(self, pieces: list[Piece]) -> Said:
        added = {"inside": "", "outside": ""}
        for kind, text in pieces:
            if kind != "closed":
                added[kind] += self._parts[kind].push(text)
        return Said(reasoning=added["inside"], content=added["outside"])


class _Trimmed:
    """Drops leading white space, and trailing white space unless more follows."""

    def __init__(self) -> None:
        self._started = False
        self._space = ""

    def push(self, text: str) -> str:
        text = self._space + text
        if not self._started:
            text = text.lstrip()
        kept = text.rstrip()
        self._started |= bool(kept)
        self._space = text[len(kept) :] if self._started else ""
        return kept


def starts_inside(prompt: str, opening: str = OPENING) -> bool:
    """Return whether a rendered prompt already opens the thoughts.

    >>> starts_inside("<|im_start|>assistant\\n<think>\\n")
    True
    """
    return prompt.rstrip().endswith(opening)
