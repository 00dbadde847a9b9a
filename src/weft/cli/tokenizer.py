"""``weft tokenizer``: train, encode, inspect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from weft.core.console import console, table
from weft.core.errors import ConfigError
from weft.data.corpus import Corpus
from weft.data.sources.catalog import open_source
from weft.text.tokenizer import Tokenizer


def train(source: str, *, out: Path, vocab_size: int = 4096) -> None:
    """Train a byte-level BPE tokenizer on a corpus or text files.

    Parameters
    ----------
    source
        A corpus built by `weft data build`, or anything it reads: stdlib, a folder, a file.
    out
        Folder to write.
    vocab_size
        Tokens, special tokens included.
    """
    from weft.text.train import train_bpe

    tokenizer = train_bpe(_texts(source), vocab_size)
    tokenizer.save(out)
    console.print(f"wrote {out}: {tokenizer.vocab_size} tokens", markup=False)


def encode(tokenizer: Path, text: str, *, special: bool = False) -> None:
    """Show how a text is split into tokens.

    Parameters
    ----------
    tokenizer
        A folder with tokenizer.json, or the file itself.
    text
        The text.
    special
        Turn special tokens written in the text into their ids.
    """
    loaded = Tokenizer.load(tokenizer)
    ids = loaded.encode(text, special=special)
    console.print(_token_table(loaded, ids))
    num_bytes = len(text.encode("utf-8"))
    console.print(f"{len(ids)} tokens, {num_bytes / max(len(ids), 1):.2f} bytes per token")


def inspect(tokenizer: Path, *, longest: int = 10) -> None:
    """Show a tokenizer's size, special tokens and longest tokens.

    Parameters
    ----------
    tokenizer
        A folder with tokenizer.json, or the file itself.
    longest
        How many of the longest tokens to show.
    """
    if longest < 0:
        raise ConfigError(f"longest is {longest}; it must be at least 0")
    loaded = Tokenizer.load(tokenizer)
    special = ", ".join(f"{loaded.special_text(i)} = {i}" for i in sorted(loaded.special_ids))
    rows = [
        ("vocabulary", str(loaded.vocab_size)),
        ("special tokens", special or "none"),
        ("end tokens", ", ".join(str(i) for i in loaded.eos_ids) or "none"),
        ("chat template", "yes" if loaded.chat_template else "no"),
        ("fingerprint", loaded.fingerprint[:16]),
    ]
    console.print(table("", ("tokenizer", ""), rows, numbers=False))
    ids = sorted(range(loaded.vocab_size), key=lambda i: -len(loaded.token_bytes(i)))[:longest]
    console.print(_token_table(loaded, ids))


def _texts(source: str) -> Iterator[str]:
    if (Path(source) / "manifest.json").is_file():
        return Corpus(Path(source)).train_texts()
    return (document.text for document in open_source(source).documents())


def _token_table(tokenizer: Tokenizer, ids: Sequence[int]) -> Table:
    rows = [(str(i), _shown(tokenizer, i)) for i in ids]
    return table("", ("id", "token"), rows, numbers=False)


def _shown(tokenizer: Tokenizer, token_id: int) -> str:
    return tokenizer.special_text(token_id) or repr(
        tokenizer.token_bytes(token_id).decode("utf-8", "backslashreplace")
    )
