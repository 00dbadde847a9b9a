"""Hugging Face directories in and out.

Weights are read tensor by tensor straight into the model's own, so the peak memory is the model
plus the largest tensor of the file.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import torch
from torch import Tensor

from weft.checkpoint.safetensors import TensorFiles, write_sharded
from weft.core.errors import CheckpointError, InputFileError
from weft.core.files import disk_errors, read_json, write_json
from weft.models.decoder import Decoder
from weft.models.families import key_map, rules
from weft.models.hf_keys import Part, parts
from weft.spec import ModelSpec
from weft.spec.families import spec_from_hf, spec_to_hf
from weft.text.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_SHARD_BYTES = 5 * 10**9


def load_spec(folder: Path) -> ModelSpec:
    """Read the specification of a checkpoint folder.

    Raises:
        InputFileError: the folder or its config.json is missing.
        UnsupportedError: the architecture is not supported.
    """
    folder = _model_folder(folder)
    config = read_json(folder / "config.json")
    generation = folder / "generation_config.json"
    if generation.exists():
        # Chat models list further end tokens only here.
        config = {**config, **_end_tokens(config, read_json(generation))}
    return spec_from_hf(config)


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Decoder:
    """Load a model; ``dtype`` none keeps the type the checkpoint was saved in.

    Raises:
        CheckpointError: missing, surplus, truncated or misshapen tensors, by name.
    """
    folder = _model_folder(folder)
    spec = load_spec(folder)
    files = TensorFiles(folder)
    key_parts = list(parts(rules(spec)))
    _check_names(folder, files, key_parts, spec)
    if dtype is None:
        dtype = files.read(key_parts[0].theirs).dtype
    model = Decoder(spec, device="meta", dtype=dtype).to_empty(device=device)
    ours = model.state_dict()
    for part in key_parts:
        _fill(ours[part.ours], part, files.read(part.theirs), folder)
    return model


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
    write_sharded(folder, hf_tensors(model, dtype=dtype), max_shard_bytes=max_shard_bytes)
    write_json(folder / "config.json", config)
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    write_json(folder / "generation_config.json", {key: config[key] for key in keys})
    if tokenizer is not None:
        tokenizer.save(folder)


def hf_tensors(model: Decoder, *, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Return the model's weights under Hugging Face names, merged tensors split."""
    ours = model.state_dict()
    result = {}
    for part in parts(rules(model.spec)):
        values = _place(ours[part.ours], part)
        if part.layout is not None:
            values = part.layout.to_theirs(values)
        result[part.theirs] = values.to(dtype or values.dtype).contiguous()
    return result


def load_hf_tensors(model: Decoder, tensors: dict[str, Tensor]) -> None:
    """Copy weights under Hugging Face names into a model, in place."""
    ours = model.state_dict()
    for part in parts(rules(model.spec)):
        _fill(ours[part.ours], part, tensors[part.theirs], Path("tensors"))


def _model_folder(folder: Path) -> Path:
    folder = Path(folder).expanduser()
    if not (folder / "config.json").exists():
        state = "has no config.json" if folder.is_dir() else "is not a folder"
        raise InputFileError(
            f"{str(folder)!r} {state}",
            fix="give a folder with config.json and safetensors, such as RUN/model",
        )
    return folder


def _end_tokens(config: dict, generation: dict) -> dict:
    ids: list[int] = []
    for source in (config.get("eos_token_id"), generation.get("eos_token_id")):
        for token in source if isinstance(source, list) else [source]:
            if token is not None and token not in ids:
                ids.append(token)
    return {"eos_token_id": ids} if ids else {}


def _check_names(folder: Path, files: TensorFiles, key_parts: list[Part], spec: ModelSpec) -> None:
    expected = {part.theirs for part in key_parts}
    missing = sorted(expected - files.names)
    # A tied head may be stored once more; rotary tables of old checkpoints are recomputed.
    ignored = {"lm_head.weight"} if spec.tie_embeddings else set()
    surplus = sorted(
        name
        for name in files.names - expected - ignored
        if not any(fnmatch(name, pattern) for pattern in key_map(spec).ignored)
    )
    for names, what in ((missing, "lacks"), (surplus, "has an unknown")):
        if names:
            raise CheckpointError(
                f"{folder} {what} tensor {names[0]!r} ({len(names)} in all)",
                fix="config.json and the weights do not belong together",
            )


@torch.no_grad()
def _fill(parameter: Tensor, part: Part, tensor: Tensor, folder: Path) -> None:
    target = _place(parameter, part)
    if part.layout is not None:
        tensor = part.layout.to_ours(tensor)
    if target.shape != tensor.shape:
        raise CheckpointError(
            f"{folder}: tensor {part.theirs!r} has shape {tuple(tensor.shape)}, but config.json "
            f"describes {tuple(target.shape)}",
            fix="config.json and the weights do not belong together",
        )
    target.copy_(tensor)


def _place(tensor: Tensor, part: Part) -> Tensor:
    """Return the view of our tensor that a part fills."""
    if part.index is not None:
        tensor = tensor[part.index]
    return tensor if part.size is None else tensor.narrow(part.axis, part.start, part.size)
