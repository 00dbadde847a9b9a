"""Sentence encoders in the folder layout of sentence-transformers.

::

    MODEL/
      config.json, model.safetensors, tokenizer.json   the encoder
      modules.json                  the parts a text passes through, in order
      sentence_bert_config.json     the longest text in tokens
      1_Pooling/config.json         how tokens' vectors become one
"""

from __future__ import annotations

from pathlib import Path

import torch

from weft.checkpoint.encoders import load_encoder, save_encoder
from weft.core.errors import CheckpointError, UnsupportedError
from weft.core.files import read_json, write_json
from weft.models.embed import TextEmbedder
from weft.spec import PoolingSpec
from weft.spec.encoder import PoolingKind
from weft.text.tokenizer import Tokenizer

_MODES: dict[str, PoolingKind] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
_PARTS = ("Transformer", "Pooling", "Normalize")


def load_embedder(
    folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> TextEmbedder:
    """Load a sentence encoder; a plain encoder's folder gives the normalised mean of its tokens.

    Raises:
        UnsupportedError: the folder has a part (such as Dense) or a pooling that we lack.
        CheckpointError: missing, surplus, truncated or misshapen tensors, by name.
    """
    folder = Path(folder).expanduser()
    pooling = load_pooling(folder)
    model, tokenizer = load_encoder(folder, dtype=dtype, device=device), Tokenizer.load(folder)
    limits = folder / "sentence_bert_config.json"
    max_tokens = read_json(limits).get("max_seq_length") if limits.exists() else None
    short_dims = read_json(folder / "config.json").get("matryoshka_dimensions") or ()
    return TextEmbedder(model, tokenizer, pooling, max_tokens=max_tokens, short_dims=short_dims)


def save_embedder(embedder: TextEmbedder, folder: Path) -> None:
    """Write a folder that sentence-transformers and transformers load.

    Raises:
        ResourceError: the disk is full or not writable.
    """
    folder = Path(folder)
    save_encoder(embedder.model, folder, tokenizer=embedder.tokenizer)
    if embedder.short_dims:
        config = read_json(folder / "config.json")
        write_json(
            folder / "config.json", {**config, "matryoshka_dimensions": list(embedder.short_dims)}
        )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {mode: kind == embedder.pooling.kind for mode, kind in _MODES.items()}
    pooling = {"word_embedding_dimension": embedder.dim, **modes}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    limits = {"max_seq_length": embedder.max_tokens, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", limits)
    kinds = _PARTS if embedder.pooling.normalise else _PARTS[:2]
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{kind}" if index else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)


def load_pooling(folder: Path) -> PoolingSpec:
    """Read how a folder pools; without ``modules.json`` it is the normalised mean.

    Raises:
        UnsupportedError: the folder has a part or a pooling that we lack.
    """
    if not (folder / "modules.json").exists():
        return PoolingSpec()
    modules = sorted(read_json(folder / "modules.json"), key=lambda module: module["idx"])
    kinds = tuple(str(module["type"]).rpartition(".")[2] for module in modules)
    if kinds not in (_PARTS, _PARTS[:2]):
        raise UnsupportedError(
            f"{folder} has the parts {', '.join(kinds)}",
            fix=f"supported are {', '.join(_PARTS)}, the last one optional",
        )
    file = folder / str(modules[1]["path"]) / "config.json"
    return PoolingSpec(_mode(file), normalise=kinds == _PARTS)


def _mode(file: Path) -> PoolingKind:
    config = read_json(file)
    named = config.get("pooling_mode")  # newer files name the mode, older ones have a flag for each
    flags = (
        [f"pooling_mode_{named}"] if named else [name for name in config if _is_set(config, name)]
    )
    found = [kind for flag in flags for mode, kind in _MODES.items() if mode.startswith(flag)]
    if not flags:
        raise CheckpointError(f"{file} names no pooling", fix="restore the file")
    if len(flags) > 1 or not found:
        raise UnsupportedError(
            f"{file} asks for {', '.join(flags)}", fix=f"supported is one of {', '.join(_MODES)}"
        )
    return found[0]


def _is_set(config: dict, name: str) -> bool:
    return name.startswith("pooling_mode_") and bool(config[name])
