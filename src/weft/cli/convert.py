"""``weft convert``: read a checkpoint, check it, write it again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from weft.core.console import console, format_bytes, format_count
from weft.core.errors import InputFileError


def convert(
    source: Path,
    out: Path,
    *,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Rewrite a checkpoint: element type, shards, format check.

    Parameters
    ----------
    source
        Folder of a Hugging Face checkpoint.
    out
        Folder to write.
    dtype
        Element type; none keeps it.
    max_shard_bytes
        Split the weights into files of at most this size.
    """
    from weft.checkpoint.hf import DTYPES, load_model, save_model
    from weft.text.tokenizer import Tokenizer

    if out.resolve() == source.resolve():
        raise InputFileError("source and out are the same folder", fix="choose another --out")
    model = load_model(source, dtype=DTYPES[dtype] if dtype else None)
    tokenizer = Tokenizer.load(source) if (source / "tokenizer.json").exists() else None
    if tokenizer is not None:
        tokenizer.check_model(model.spec.vocab_size)
    save_model(model, out, tokenizer=tokenizer, max_shard_bytes=max_shard_bytes)
    size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    console.print(
        f"wrote {out}: {format_count(model.num_parameters)} parameters, {format_bytes(size)}",
        markup=False,
    )
