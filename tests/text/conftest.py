from __future__ import annotations

import inspect
import json
import textwrap
import unicodedata

import pytest

from weft.text.tokenizer import Tokenizer
from weft.text.train import train_bpe

PROSE = (
    "Übung macht den Meister: 1234 Äpfel für 5,60 €, aber don't worry.\r\n"
    "人工智能需要大量的数据。トークナイザーは文字を分割する。\n\n\n"
    "Привет, мир! السلام عليكم 👩‍👩‍👧 e\u0301\u00a0naïve\t\tx = 'Y'LL'\n" * 3
)


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """A few real source files and some prose in many scripts."""
    modules = (json, json.decoder, textwrap, inspect, unicodedata)
    sources = [inspect.getsource(m) for m in modules if getattr(m, "__file__", "").endswith(".py")]
    return [*sources, PROSE, "a" * 37 + " " * 29 + "=" * 41 + "\n" * 23]


@pytest.fixture(scope="session")
def tokenizer(corpus: list[str]) -> Tokenizer:
    return train_bpe(corpus, 900)
