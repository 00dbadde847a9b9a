"""Named tensors from anywhere into a model's own tensors: by our names or by Hugging Face's.

A trainer that calls tensors as checkpoints do (``q_proj``, ``k_proj``, ``v_proj``) fills the parts
of our merged ones (``qkv``); one that uses this very model sends them whole. All names and shapes
are checked before the first number is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import Tensor

from weft.checkpoint.transfer import place
from weft.core.errors import CheckpointError, did_you_mean
from weft.dist.tensor_info import TensorInfo
from weft.models.decoder import Decoder
from weft.models.families import key_map
from weft.models.hf_keys import Part, parts


@dataclass(frozen=True)
class Place:
    """Where a named tensor goes.

    Attributes:
        ours: Name of our tensor.
        target: What it fills: a view of ours.
        part: How it lies there if the name is Hugging Face's; none for our own name.
    """

    ours: str
    target: Tensor
    part: Part | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape it must have."""
        if self.part is None or self.part.layout is None:
            return tuple(self.target.shape)
        shape = torch.empty(self.target.shape, device="meta")
        return tuple(self.part.layout.to_theirs(shape).shape)

    @torch.no_grad()
    def write(self, tensor: Tensor) -> None:
        """Copy the numbers, converted to our element type and device."""
        if self.part is not None and self.part.layout is not None:
            tensor = self.part.layout.to_ours(tensor)
        self.target.copy_(tensor)


class Places:
    """Every name under which a tensor of a model can come.

    Args:
        model: Its tensors are written in place, so whoever shares them sees the change.
    """

    def __init__(self, model: Decoder) -> None:
        ours = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        self._places = {name: Place(name, tensor) for name, tensor in ours.items()}
        self._num_values = {name: tensor.numel() for name, tensor in ours.items()}
        found = key_map(model.spec)
        for part in parts(found.rules(model.spec)):
            if part.ours in ours:  # a specification of one's own may be no checkpoint's
                self._places[part.theirs] = Place(part.ours, place(ours[part.ours], part), part)
        tied = ("lm_head.weight",) if model.spec.tie_embeddings else ()
        self._ignored = (*found.ignored, *tied)
        self._aliases = found.aliases

    def find(self, name: str) -> Place | None:
        """Return where a tensor goes; none if nobody needs it, such as a tied head.

        Raises:
            CheckpointError: the model has no such tensor.
        """
        for pattern, replacement in self._aliases:
            name = re.sub(pattern, replacement, name)
        found = self._places.get(name)
        if found is None and not any(fnmatch(name, pattern) for pattern in self._ignored):
            raise CheckpointError(
                f"the model has no tensor {name!r}", fix=did_you_mean(name, self._places)
            )
        return found

    def check(self, infos: Iterable[TensorInfo], *, partial: bool = False) -> None:
        """Refuse tensors that do not fit the model, before anything is written.

        Args:
            infos: Everything that is to come.
            partial: Tensors may be missing; they keep their numbers.

        Raises:
            CheckpointError: an unknown name, a wrong shape, a tensor twice or missing.
        """
        seen: set[str] = set()
        num_filled = dict.fromkeys(self._num_values, 0)
        for info in infos:
            target = self.find(info.name)
            if info.name in seen:
                raise CheckpointError(f"tensor {info.name!r} comes twice")
            seen.add(info.name)
            if target is None:
                continue
            if info.shape != target.shape:
                raise CheckpointError(
                    f"tensor {info.name!r} has shape {info.shape}, the model's is {target.shape}",
                    fix="send the weights of a model with the same specification",
                )
            num_filled[target.ours] += target.target.numel()
        self._check_filled(num_filled, partial=partial)

    def _check_filled(self, num_filled: dict[str, int], *, partial: bool) -> None:
        for name, size in self._num_values.items():
            if num_filled[name] > size:
                raise CheckpointError(
                    f"tensor {name!r} comes whole and in parts",
                    fix="send each tensor under one name",
                )
            if num_filled[name] < size and not partial:
                raise CheckpointError(
                    f"tensor {name!r} of the model is missing, or a part of it",
                    fix="send all tensors, or say that the update is partial",
                )
