"""Drafting heads in folders of their own: ``config.json`` and ``model.safetensors``.

``config.json`` names the kind ("block", "eagle", "medusa") and the sizes that the target's
specification does not give.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weft.checkpoint.memory import materialise
from weft.checkpoint.safetensors import TensorFiles, write_tensors
from weft.core.errors import CheckpointError
from weft.core.files import read_json, write_json
from weft.models.block_draft import BlockHead
from weft.models.eagle import EagleHead
from weft.models.medusa import MedusaHeads
from weft.spec import ModelSpec

Speculator = BlockHead | EagleHead | MedusaHeads
_FILE = "model.safetensors"


def save_speculator(head: Speculator, folder: Path) -> None:
    """Write a head.

    Raises:
        ResourceError: the disk is full or not writable.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", _config(head))
    tensors = {name: tensor.detach().contiguous() for name, tensor in head.state_dict().items()}
    write_tensors(folder / _FILE, tensors)


def load_speculator(
    folder: Path, spec: ModelSpec, *, device: torch.device | str = "cpu"
) -> Speculator:
    """Load a head for a model.

    Raises:
        CheckpointError: it was made for a model of another width, tensors are missing or surplus,
            or the folder holds something else.
    """
    folder = Path(folder).expanduser()
    config = read_json(folder / "config.json")
    if config.get("dim") != spec.dim:
        raise CheckpointError(
            f"{folder} drafts for a model of width {config.get('dim')}, this one is {spec.dim}",
            fix="train a head for this model",
        )
    files = TensorFiles(folder)
    tensors = {name: files.read(name) for name in files.names}
    head = _empty(config, spec, tensors, folder)
    materialise(head, device)
    _fill(head, tensors, folder)
    return head.eval()


def _config(head: Speculator) -> dict[str, Any]:
    if isinstance(head, EagleHead):
        dim = head.project.weight.shape[0]
        return {"speculator": "eagle", "dim": dim, "ffn_dim": head.ffn_dim}
    if isinstance(head, BlockHead):
        sizes = {"ffn_dim": head.ffn_dim, "num_layers": len(head.blocks), "rank": head.rank}
        return {"speculator": "block", "dim": head.spec.dim, **sizes}
    return {"speculator": "medusa", "dim": head.dim, "num_heads": len(head.heads)}


def _empty(
    config: dict[str, Any], spec: ModelSpec, tensors: dict[str, Tensor], folder: Path
) -> Speculator:
    dtype = next(iter(tensors.values())).dtype
    kind = config.get("speculator")
    if kind == "eagle":
        return EagleHead(spec, ffn_dim=config["ffn_dim"], device="meta", dtype=dtype)
    if kind == "block":
        sizes = {name: config[name] for name in ("ffn_dim", "num_layers", "rank")}
        return BlockHead(spec, **sizes, device="meta", dtype=dtype)
    if kind == "medusa":
        return MedusaHeads(spec.dim, config["num_heads"], device="meta", dtype=dtype)
    raise CheckpointError(
        f"{folder} holds a speculator of kind {kind!r}",
        fix="supported are 'block', 'eagle' and 'medusa'",
    )


def _fill(head: nn.Module, tensors: dict[str, Tensor], folder: Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    )
    if wrong:
        raise CheckpointError(
            f"{folder} has missing, surplus or misshapen tensors: {', '.join(wrong[:5])}",
            fix="train the head again for this model",
        )
    head.load_state_dict(tensors)
