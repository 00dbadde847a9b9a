"""Ask the standard library's documentation and get answers with file and line.

Without a model the answer is quoted from the passages; with one it is written from them.

    python examples/ask_the_standard_library.py "How do I make a temporary directory?"
    python examples/ask_the_standard_library.py "..." --model runs/quickstart/model
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from weft.apps.client import LocalChatClient
from weft.apps.rag import Index
from weft.data.sources.catalog import open_source


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question")
    parser.add_argument("--index", type=Path, default=Path("runs/stdlib.sqlite"))
    parser.add_argument("--model", type=Path, help="folder of a model with a chat template")
    parser.add_argument("--files", type=int, help="index only so many files")
    options = parser.parse_args(arguments)

    if not options.index.exists():
        documents = itertools.islice(open_source("stdlib-docstrings").documents(), options.files)
        Index.build(((d.id, d.text) for d in documents), options.index).close()
    client = None
    if options.model is not None:
        from weft import LLM

        client = LocalChatClient(LLM.load(options.model))
    with Index(options.index) as index:
        answer = index.answer(options.question, client)
        print(answer.text)
        print(f"\nfrom {len(index)} passages:", *answer.citations, sep="\n  ")


if __name__ == "__main__":
    main()
