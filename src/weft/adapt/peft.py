"""Adapter folders of Hugging Face PEFT, in and out.

A folder holds ``adapter_config.json`` and ``adapter_model.safetensors`` with tensors such as
``base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`` [R, I] and ``lora_B`` [O, R].
Pairs of parts of a merged layer become blocks of it; a pair of a whole merged layer becomes one
pair for each part, all with the same A, which is the same update.

R rank, I input width, O rows of a layer of theirs.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from weft.adapt.adapter import Adapter, Block, check_fits, linear_shapes
from weft.adapt.peft_config import CONFIG_FILE, PeftConfig, config_fields, read_config
from weft.adapt.peft_names import Target, Targets
from weft.core.errors import CheckpointError, InputFileError, UnsupportedError
from weft.core.files import disk_errors, write_json
from weft.models.decoder import Decoder

WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_KEY = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")


def load_peft(folder: str | Path, model: Decoder) -> Adapter:
    """Read an adapter for a model; the model stays as it is.

    Raises:
        InputFileError: files are missing or broken.
        UnsupportedError: the adapter needs something that is not computed here.
        CheckpointError: half a pair, or shapes that are not the model's.
    """
    folder = Path(folder).expanduser()
    config = read_config(folder)
    shapes = linear_shapes(model)
    targets = Targets(model.spec, shapes)
    blocks: dict[str, list[Block]] = {}
    for layer, (a_RI, b_OR) in _pairs(_read(folder / WEIGHTS_FILE)).items():
        target = targets.find(layer)
        _check_shapes(layer, a_RI, b_OR, target, config)
        scale = config.scale(layer, a_RI.shape[0])
        block = Block(a_RI, target.rows_to_ours(b_OR).contiguous(), scale, target.start)
        blocks.setdefault(target.ours, []).append(block)
    adapter = Adapter(
        {ours: tuple(sorted(found, key=lambda b: b.start)) for ours, found in blocks.items()}
    )
    check_fits(adapter, shapes)
    return adapter


def save_peft(
    adapter: Adapter, folder: str | Path, model: Decoder, *, base: str | Path | None = None
) -> None:
    """Write a folder that PEFT loads onto the transformers model of the same weights.

    Args:
        adapter: Such as ``weft.adapt.lora.adapter_of(model)``.
        folder: Made if need be.
        model: Whose layers the adapter changes.
        base: Name or folder of the base model, for who loads the adapter.

    Raises:
        UnsupportedError: a layer that transformers keeps in another form.
        ResourceError: the disk is full or not writable.
    """
    folder = Path(folder).expanduser()
    shapes = linear_shapes(model)
    check_fits(adapter, shapes)
    targets = Targets(model.spec, shapes)
    pairs: dict[str, tuple[Target, Block]] = {}
    for ours, blocks in adapter.blocks.items():
        for target in targets.inside(ours):
            block = _block_of(target, blocks)
            if block is not None:
                pairs[target.theirs] = (target, block)
    tensors: dict[str, Tensor] = {}
    for theirs, (target, block) in pairs.items():
        # Parts of one layer share A; a file holds each tensor by itself.
        tensors[f"{_PREFIX}{theirs}.lora_A.weight"] = block.a_RI.detach().cpu().clone()
        b_OR = target.rows_to_theirs(block.b_OR.detach())
        tensors[f"{_PREFIX}{theirs}.lora_B.weight"] = b_OR.cpu().contiguous().clone()
    config = _config({name: block for name, (_, block) in pairs.items()}, base)
    transposed = any(target.is_transposed for target, _ in pairs.values())
    _write(folder / WEIGHTS_FILE, tensors)
    write_json(folder / CONFIG_FILE, config_fields(config, sorted(pairs), transposed=transposed))


def _read(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        pickled = path.with_suffix(".bin").exists()
        raise InputFileError(
            f"{str(path.parent)!r} has no {path.name}" + (" but a pickle" if pickled else ""),
            fix="save the adapter with safe_serialization=True" if pickled else "copy the file",
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputFileError(
            f"{path} is not a safetensors file: {error}", fix="copy it again"
        ) from error


def _pairs(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A and B by layer."""
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = _KEY.fullmatch(name.removeprefix(_PREFIX))
        if found is None:
            raise UnsupportedError(
                f"the adapter has a tensor {name!r}; only pairs lora_A and lora_B of linear layers "
                "are computed",
                fix="merge the adapter with merge_and_unload()",
            )
        sides.setdefault(found["layer"], {})[found["side"]] = tensor
    for layer, pair in sides.items():
        if len(pair) < 2:
            missing = "B" if "A" in pair else "A"
            raise CheckpointError(
                f"the adapter of {layer!r} has no lora_{missing}", fix="save the adapter again"
            )
    if not sides:
        raise CheckpointError("the adapter holds no tensors", fix="save the adapter again")
    return {layer: (pair["A"], pair["B"]) for layer, pair in sides.items()}


def _check_shapes(
    layer: str, a_RI: Tensor, b_OR: Tensor, target: Target, config: PeftConfig
) -> None:
    rank = a_RI.shape[0] if a_RI.dim() == 2 else 0
    if tuple(a_RI.shape) != (rank, target.width) or tuple(b_OR.shape) != (target.num_rows, rank):
        raise CheckpointError(
            f"the adapter of {layer!r} has shapes {tuple(a_RI.shape)} and {tuple(b_OR.shape)}; the "
            f"model's layer maps {target.width} to {target.num_rows}",
            fix="use it with the model it was trained on"
            + (f", {config.base}" if config.base else ""),
        )
    if rank != config.rank_of(layer):
        raise CheckpointError(
            f"the adapter of {layer!r} has rank {rank}, its config says {config.rank_of(layer)}",
            fix=f"copy {CONFIG_FILE} and {WEIGHTS_FILE} from the same save",
        )


def _block_of(target: Target, blocks: tuple[Block, ...]) -> Block | None:
    """Return the pair for one part of a layer; none where nothing changes it."""
    found = [block for block in blocks if _overlap(block, target)]
    if not found:
        return None
    scale = found[0].scale
    columns = []
    for block in found:
        b_OR = block.b_OR.new_zeros(target.num_rows, block.rank)
        rows = _overlap(block, target)
        inner = block.b_OR[rows.start - block.start : rows.stop - block.start]
        factor = 1.0 if block.scale == scale else block.scale / scale
        b_OR[rows.start - target.start : rows.stop - target.start] = factor * inner
        columns.append(b_OR)
    a_RI, b_OR = torch.cat([block.a_RI for block in found]), torch.cat(columns, dim=1)
    # Ranks of other parts of the layer, where a block-diagonal pair was kept as one.
    used_R = b_OR.any(dim=0)
    if used_R.any() and not used_R.all():
        a_RI, b_OR = a_RI[used_R], b_OR[:, used_R]
    return Block(a_RI, b_OR, scale)


def _overlap(block: Block, target: Target) -> range:
    return range(max(block.start, target.start), min(block.rows.stop, target.rows.stop))


def _config(blocks: Mapping[str, Block], base: str | Path | None) -> PeftConfig:
    """State the commonest rank and alpha once, the others layer by layer."""
    alphas = {name: _tidy(block.scale * block.rank) for name, block in blocks.items()}
    rank = Counter(block.rank for block in blocks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    return PeftConfig(
        rank=rank,
        alpha=alpha,
        rank_pattern={re.escape(n): b.rank for n, b in blocks.items() if b.rank != rank},
        alpha_pattern={re.escape(n): value for n, value in alphas.items() if value != alpha},
        base=None if base is None else str(base),
    )


def _tidy(alpha: float) -> float:
    """Return a whole number where only rounding keeps it from being one."""
    return round(alpha) if abs(alpha - round(alpha)) < 1e-9 * max(1.0, abs(alpha)) else alpha


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(dict(tensors), str(temporary), metadata={"format": "pt"})
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
