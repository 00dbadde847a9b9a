"""Train a byte-level BPE tokenizer on the standard library's docstrings and look at it.

python examples/train_tokenizer.py --out runs/tokenizer --vocab-size 1024
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from weft.data.sources.catalog import open_source
from weft.text.tokenizer import Tokenizer
from weft.text.train import train_bpe

SAMPLE = "def read_file(path: Path) -> str:  # 12 + 34 = 46, naïve café 🙂"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/tokenizer"))
    parser.add_argument("--vocab-size", type=int, default=1024)
    parser.add_argument("--files", type=int, default=150, help="how many files to learn from")
    options = parser.parse_args(arguments)

    documents = open_source("stdlib-docstrings").documents()
    texts = [document.text for document in itertools.islice(documents, options.files)]
    train_bpe(texts, options.vocab_size).save(options.out)

    tokenizer = Tokenizer.load(options.out)
    ids = tokenizer.encode(SAMPLE)
    assert tokenizer.decode(ids) == SAMPLE
    print(" ".join(repr(tokenizer.decode([token])) for token in ids))
    print(f"{len(SAMPLE.encode())} bytes are {len(ids)} of {tokenizer.vocab_size} tokens")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
