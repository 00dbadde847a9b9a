"""Encoders, sentence encoders and encoder-decoders in Hugging Face directories, in and out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from weft.checkpoint.hf import MAX_SHARD_BYTES
from weft.checkpoint.memory import materialise
from weft.checkpoint.safetensors import TensorFiles, write_sharded
from weft.checkpoint.transfer import fill, place
from weft.core.errors import InputFileError
from weft.core.files import disk_errors, read_json, write_json
from weft.models.encoder import Encoder
from weft.models.encoder_decoder import EncoderDecoder
from weft.models.families.encoders import ENCODER_DECODER_KEYS, ENCODER_KEYS
from weft.models.hf_keys import Part, parts
from weft.spec import EncoderDecoderSpec, EncoderSpec
from weft.spec.families.encoders import (
    ENCODERS,
    encoder_decoder_from_hf,
    encoder_decoder_to_hf,
    encoder_from_hf,
    encoder_to_hf,
)
from weft.text.tokenizer import Tokenizer

# What norms are called in checkpoints converted from TensorFlow.
_OLD_NORM_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


def is_encoder(folder: Path) -> bool:
    """Whether a folder's config.json is that of an encoder, which gives vectors and no text."""
    file = Path(folder).expanduser() / "config.json"
    return file.exists() and read_json(file).get("model_type") in ENCODERS


def load_encoder(
    folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Encoder:
    """Load an encoder; ``dtype`` none keeps the type the checkpoint was saved in.

    The pooler is there if the file has one and no head for masked tokens.

    Raises:
        InputFileError: the folder or its config.json is missing.
        UnsupportedError: the architecture is not supported.
        CheckpointError: missing, surplus, truncated or misshapen tensors, by name.
    """
    folder = Path(folder).expanduser()
    spec = encoder_from_hf(_config(folder))
    files, keys = TensorFiles(folder), ENCODER_KEYS[spec.family]
    prefix = keys.prefix if keys.prefix + keys.first in files.names else ""
    has_pooler = prefix + keys.pooler in files.names
    spec = dataclasses.replace(spec, pooler=spec.masked_lm is None and has_pooler)
    key_parts = _as_stored(parts(keys.rules(spec, prefix)), files)
    model = Encoder(spec, device="meta", dtype=dtype or files.entries[key_parts[0].theirs].dtype)
    materialise(model, device)
    fill(model.state_dict(), key_parts, files, keys.ignored)
    return model


def save_encoder(
    model: Encoder,
    folder: Path,
    *,
    tokenizer: Tokenizer | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a folder that transformers loads unchanged.

    Raises:
        UnsupportedError: the family cannot express the model.
        ResourceError: the disk is full or not writable.
    """
    config = encoder_to_hf(model.spec)
    _save(model, encoder_parts(model.spec), config, Path(folder), tokenizer, max_shard_bytes)


def encoder_parts(spec: EncoderSpec) -> list[Part]:
    """Return the tensors of theirs that hold an encoder, and their places."""
    keys = ENCODER_KEYS[spec.family]
    return list(parts(keys.rules(spec, "" if spec.masked_lm is None else keys.prefix)))


def load_encoder_decoder(
    folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> EncoderDecoder:
    """Load an encoder-decoder; ``dtype`` none keeps the type the checkpoint was saved in.

    Raises:
        InputFileError: the folder or its config.json is missing.
        UnsupportedError: the architecture is not supported.
        CheckpointError: missing, surplus, truncated or misshapen tensors, by name.
    """
    folder = Path(folder).expanduser()
    files, spec = TensorFiles(folder), encoder_decoder_from_hf(_config(folder))
    # transformers 5 writes that T5's head is the embedding even where the file has one of its own.
    if spec.decoder.tie_embeddings and "lm_head.weight" in files.names:
        decoder = dataclasses.replace(spec.decoder, tie_embeddings=False)
        spec = dataclasses.replace(spec, decoder=decoder)
    key_parts = encoder_decoder_parts(spec)
    model = EncoderDecoder(
        spec, device="meta", dtype=dtype or files.entries[key_parts[0].theirs].dtype
    )
    materialise(model, device)
    ignored = ENCODER_DECODER_KEYS[spec.family].ignored
    fill(model.state_dict(), key_parts, files, ignored)
    return model


def save_encoder_decoder(
    model: EncoderDecoder,
    folder: Path,
    *,
    tokenizer: Tokenizer | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a folder that transformers loads unchanged.

    Raises:
        UnsupportedError: the family cannot express the model.
        ResourceError: the disk is full or not writable.
    """
    config = encoder_decoder_to_hf(model.spec)
    key_parts = encoder_decoder_parts(model.spec)
    _save(model, key_parts, config, Path(folder), tokenizer, max_shard_bytes)
    keys = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    write_json(Path(folder) / "generation_config.json", {key: config[key] for key in keys})


def encoder_decoder_parts(spec: EncoderDecoderSpec) -> list[Part]:
    """Return the tensors of theirs that hold an encoder-decoder, and their places."""
    return list(parts(ENCODER_DECODER_KEYS[spec.family].rules(spec)))


def named_tensors(model: nn.Module, key_parts: Sequence[Part]) -> Iterator[tuple[str, Tensor]]:
    """Yield a model's weights under Hugging Face names, merged tensors split."""
    ours = model.state_dict()
    for part in key_parts:
        values = place(ours[part.ours], part)
        if part.layout is not None:
            values = part.layout.to_theirs(values)
        yield part.theirs, values.contiguous()


def _save(
    model: nn.Module,
    key_parts: Sequence[Part],
    config: dict,
    folder: Path,
    tokenizer: Tokenizer | None,
    max_shard_bytes: int,
) -> None:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    write_sharded(folder, named_tensors(model, key_parts), max_shard_bytes=max_shard_bytes)
    write_json(folder / "config.json", {**config, "dtype": dtype, "torch_dtype": dtype})
    if tokenizer is not None:
        tokenizer.save(folder)


def _as_stored(key_parts: Iterator[Part], files: TensorFiles) -> list[Part]:
    """Use the older names of norms where the files have them."""

    def stored(part: Part) -> Part:
        for new, old in _OLD_NORM_NAMES.items():
            name = part.theirs.removesuffix(new) + old
            if part.theirs.endswith(new) and name in files.names:
                return dataclasses.replace(part, theirs=name)
        return part

    return [stored(part) for part in key_parts]


def _config(folder: Path) -> dict:
    if not (folder / "config.json").exists():
        state = "has no config.json" if folder.is_dir() else "is not a folder"
        raise InputFileError(
            f"{str(folder)!r} {state}", fix="give a folder with config.json and safetensors"
        )
    return read_json(folder / "config.json")
