"""The tokenisation of mteval-v13a, which published BLEU figures are computed on."""

from __future__ import annotations

import re

_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
# ASCII signs but apostrophe, comma, hyphen and full stop, which depend on their neighbours.
_SIGN = re.compile(r"([ -&(-+/:-@\[-`{-~])")
_RULES = (
    (_SIGN, r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def tokenize_13a(text: str) -> list[str]:
    """Split a text into words and signs; digits keep their points, commas and leading hyphens.

    Source: NIST's mteval-v13a.pl, as sacrebleu fixes it (Post 2018, arXiv:1804.08771).

    >>> tokenize_13a("It's 3.5 km, they said.")
    ["It's", '3.5', 'km', ',', 'they', 'said', '.']
    """
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in _ENTITIES:
        text = text.replace(entity, sign)
    text = f" {text} "
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text.split()
