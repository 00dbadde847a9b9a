"""Hugging Face directories in and out.

Weights are read straight into the model's own tensors, so the peak memory is the model plus a few
buffers of 32 MiB; only a tensor that is stored in another layout or form is held whole beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weft.checkpoint.memory import materialise
from weft.checkpoint.safetensors import TensorFiles, write_sharded
from weft.checkpoint.stored_forms import STORED_FORMS, find_form
from weft.checkpoint.transfer import LoadReport, copy_part, fill, place
from weft.core.errors import CheckpointError, InputFileError, UnsupportedError
from weft.core.files import disk_errors, read_json, write_json
from weft.models.decoder import Decoder
from weft.models.families import key_map, rules
from weft.models.hf_keys import Part, parts
from weft.spec import ModelSpec
from weft.spec.families import spec_from_hf, spec_to_hf, with_mtp
from weft.spec.families.encoders import ENCODER_DECODERS, ENCODERS
from weft.text.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_SHARD_BYTES = 5 * 10**9


def load_spec(folder: Path, *, mtp: bool = False) -> ModelSpec:
    """Read the specification of a checkpoint folder.

    ``mtp`` adds the multi-token prediction modules that config.json names; else they are left out.

    Raises:
        InputFileError: the folder or its config.json is missing.
        UnsupportedError: the architecture is not supported.
    """
    folder = _model_folder(folder)
    config = read_json(folder / "config.json")
    _refuse_encoders(config)
    generation = folder / "generation_config.json"
    if generation.exists():
        # Chat models list further end tokens only here.
        config = {**config, **_end_tokens(config, read_json(generation))}
    spec = spec_from_hf(config)
    return with_mtp(spec, config) if mtp else spec


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    mtp: bool = False,
) -> Decoder:
    """Load a model; ``dtype`` none keeps the type the checkpoint was saved in.

    ``mtp`` loads the multi-token prediction modules too, which most uses leave in the file.

    Raises:
        CheckpointError: missing, surplus, truncated or misshapen tensors, by name.
    """
    folder = _model_folder(folder)
    spec = load_spec(folder, mtp=mtp)
    files = TensorFiles(folder, key_map(spec).aliases)
    key_parts = list(parts(rules(spec)))
    model = Decoder(spec, device="meta", dtype=dtype or stored_dtype(files, key_parts))
    materialise(model, device)
    _fill(model, files, key_parts)
    return model


def load_into(model: Decoder, folder: Path) -> LoadReport:
    """Replace the weights of a model in place by those of a folder.

    Whoever shares the tensors (an engine, a trainer) sees the new weights at once; element types
    and devices stay. An engine that keeps keys and values must be told
    (``LLM.bump_weight_version``).

    Raises:
        CheckpointError: missing, surplus, truncated or misshapen tensors, by name; missing and
            surplus ones before anything is written.
    """
    folder = _model_folder(folder)
    return _fill(
        model, TensorFiles(folder, key_map(model.spec).aliases), list(parts(rules(model.spec)))
    )


def save_model(
    model: Decoder,
    folder: Path,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a folder that transformers loads unchanged.

    Raises:
        ResourceError: the disk is full or not writable.
    """
    folder = Path(folder)
    dtype = dtype or model.dtype
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    name = str(dtype).removeprefix("torch.")
    config = {**spec_to_hf(model.spec), "dtype": name, "torch_dtype": name}
    write_sharded(folder, _hf_tensors(model, dtype), max_shard_bytes=max_shard_bytes)
    write_json(folder / "config.json", config)
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    write_json(folder / "generation_config.json", {key: config[key] for key in keys})
    if tokenizer is not None:
        tokenizer.save(folder)


def hf_tensors(model: Decoder, *, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Return the model's weights under Hugging Face names, merged tensors split."""
    return dict(_hf_tensors(model, dtype))


def _hf_tensors(model: Decoder, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    ours = model.state_dict()
    learnt = {name for name, _ in model.named_parameters()}
    for part in parts(rules(model.spec)):
        values = place(ours[part.ours], part)
        if part.layout is not None:
            values = part.layout.to_theirs(values)
        if dtype is not None and part.ours in learnt:  # buffers keep their own type
            values = values.to(dtype)
        yield part.theirs, values.contiguous()


def load_hf_tensors(model: Decoder, tensors: dict[str, Tensor]) -> None:
    """Copy weights under Hugging Face names into a model, in place."""
    ours = model.state_dict()
    for part in parts(rules(model.spec)):
        copy_part(place(ours[part.ours], part), part, tensors[part.theirs], "tensors")


def _fill(model: Decoder, files: TensorFiles, key_parts: list[Part]) -> LoadReport:
    check_quantisation(files)
    return fill(model.state_dict(), key_parts, files, ignored_names(model.spec))


def ignored_names(spec: ModelSpec) -> tuple[str, ...]:
    """Return patterns of names that the files of a model may have and nobody needs."""
    ignored = key_map(spec).ignored
    # A tied head may be stored once more.
    return (*ignored, "lm_head.weight") if spec.tie_embeddings else ignored


def stored_dtype(files: TensorFiles, key_parts: list[Part]) -> torch.dtype:
    """Return the type of the first tensor that is not packed."""
    names = [part.theirs for part in key_parts if find_form(part.theirs, files.entries) is None]
    found = next((files.entries[name].dtype for name in names if name in files.entries), None)
    return torch.float32 if found is None else found


def check_quantisation(files: TensorFiles) -> None:
    """Refuse a packed format by its name rather than by the tensors it lacks.

    Raises:
        CheckpointError: a format that cannot be read.
    """
    config: dict[str, Any] = (
        read_json(files.folder / "config.json").get("quantization_config") or {}
    )
    method = config.get("quant_method")
    if method is None or method in ("fp8", "mxfp4"):
        return
    raise CheckpointError(
        f"{files.folder} holds weights packed by {method!r}",
        fix="give an unpacked checkpoint or one in "
        + " or ".join(form.name for form in STORED_FORMS),
    )


def _model_folder(folder: Path) -> Path:
    folder = Path(folder).expanduser()
    if not (folder / "config.json").exists():
        state = "has no config.json" if folder.is_dir() else "is not a folder"
        raise InputFileError(
            f"{str(folder)!r} {state}",
            fix="give a folder with config.json and safetensors, such as RUN/model",
        )
    return folder


def _refuse_encoders(config: dict) -> None:
    """Name the function that loads what is no decoder."""
    kind = config.get("model_type")
    for families, loader in (
        (ENCODERS, "load_encoder"),
        (ENCODER_DECODERS, "load_encoder_decoder"),
    ):
        if kind in families:
            raise UnsupportedError(
                f"config.json has model_type {kind!r}, which is no decoder",
                fix=f"load it with weft.checkpoint.encoders.{loader}",
            )


def _end_tokens(config: dict, generation: dict) -> dict:
    ids: list[int] = []
    for source in (config.get("eos_token_id"), generation.get("eos_token_id")):
        for token in source if isinstance(source, list) else [source]:
            if token is not None and token not in ids:
                ids.append(token)
    return {"eos_token_id": ids} if ids else {}
