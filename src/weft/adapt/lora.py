"""LoRA (Hu et al. 2021, arXiv:2106.09685): W x + (alpha / r) B A x with W frozen.

T tokens, I input width, O output width, r rank.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.adapt.adapter import Adapter, Block, check_fits, concatenated, linear_shapes
from weft.core.errors import ConfigError


@dataclass(frozen=True)
class LoRAConfig:
    """Which linear layers get a low-rank pair.

    Attributes:
        rank: r, the inner width of the pair.
        alpha: The update is scaled by alpha / rank.
        rank_stabilized: Scale by alpha / sqrt(rank) instead (rsLoRA, arXiv:2312.03732).
        targets: Name patterns of linear modules.
        dropout: Share of the adapter's inputs dropped in training.
        seed: Seed of A's initialisation; B starts at zero, so that nothing changes at first.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("*.mixer.qkv", "*.mixer.out", "*.ffn.gate_up", "*.ffn.down")
    dropout: float = 0.0
    seed: int = 0
    rank_stabilized: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"lora.rank is {self.rank}; it must be at least 1")

    @property
    def scale(self) -> float:
        """The factor of the update."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


class LoRALinear(nn.Module):
    """A frozen linear layer with a trainable low-rank pair beside it."""

    def __init__(self, base: nn.Linear, config: LoRAConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = config.scale
        self.dropout = config.dropout
        where = {"device": base.weight.device, "dtype": base.weight.dtype}
        a_rI = torch.empty(config.rank, base.in_features)
        a_rI.uniform_(-1.0, 1.0, generator=generator).mul_(1.0 / math.sqrt(base.in_features))
        self.lora_a = nn.Parameter(a_rI.to(**where))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, config.rank, **where))

    @property
    def in_features(self) -> int:
        """I, as of the plain layer."""
        return self.base.in_features

    @property
    def out_features(self) -> int:
        """O, as of the plain layer."""
        return self.base.out_features

    def forward(self, x_TI: Tensor) -> Tensor:
        """Return the frozen output plus the scaled low-rank update, [T, O]."""
        dropped_TI = F.dropout(x_TI, self.dropout, self.training) if self.dropout else x_TI
        update_TO = F.linear(F.linear(dropped_TI, self.lora_a), self.lora_b)
        return self.base(x_TI) + self.scale * update_TO

    @property
    def weight(self) -> Tensor:
        """The weight with its update, for who multiplies by it directly, such as latent attention.

        Differentiable in the pair; nothing is dropped.
        """
        return self.base.weight + self.scale * (self.lora_b @ self.lora_a)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Fold the pair into the frozen weight, in place, and return the plain layer."""
        self.base.weight += self.scale * (self.lora_b @ self.lora_a)
        return self.base


def inject(model: nn.Module, config: LoRAConfig) -> list[str]:
    """Freeze ``model`` and give matching linear layers a pair; returns their names.

    Raises:
        ConfigError: no linear layer matches.
    """
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(config.seed)
    names = []
    for name, module in list(model.named_modules()):
        matches = any(fnmatch.fnmatch(name, pattern) for pattern in config.targets)
        if matches and isinstance(module, nn.Linear):
            _set_module(model, name, LoRALinear(module, config, generator))
            names.append(name)
    if not names:
        linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
        raise ConfigError(
            f"no linear layer matches {', '.join(config.targets)}",
            fix=f"use patterns for names such as {linear[0]!r}" if linear else None,
        )
    return names


def attach(model: nn.Module, adapter: Adapter, *, dropout: float = 0.0) -> list[str]:
    """Freeze ``model`` and give it an adapter to train on; returns the layers' names.

    Blocks of one layer become one pair whose rank is the sum of theirs.

    Raises:
        CheckpointError: the adapter is another model's.
        ConfigError: a layer has a pair already, or is quantized.
    """
    shapes = linear_shapes(model)
    check_fits(adapter, shapes)
    model.requires_grad_(False)
    for name, blocks in adapter.blocks.items():
        base = model.get_submodule(name)
        if not isinstance(base, nn.Linear):
            raise ConfigError(
                f"{name!r} is a {type(base).__name__} and takes no pair to train on",
                fix="merge or remove the adapter it has, and attach before quantizing",
            )
        a_RI, b_FR, scale = concatenated(blocks, shapes[name][0])
        config = LoRAConfig(rank=a_RI.shape[0], alpha=scale * a_RI.shape[0], dropout=dropout)
        pair = LoRALinear(base, config, torch.Generator())
        pair.scale = scale
        with torch.no_grad():
            pair.lora_a.copy_(a_RI)
            pair.lora_b.copy_(b_FR)
        _set_module(model, name, pair)
    return list(adapter.blocks)


def adapter_of(model: nn.Module) -> Adapter:
    """Return a copy of the pairs of a model as they are now.

    Raises:
        ConfigError: it has none.
    """
    blocks = {
        name: (Block(_copy(module.lora_a), _copy(module.lora_b), module.scale),)
        for name, module in model.named_modules()
        if isinstance(module, LoRALinear)
    }
    if not blocks:
        raise ConfigError("the model has no low-rank pairs", fix="call lora.inject(model) first")
    return Adapter(blocks)


def merge(model: nn.Module) -> None:
    """Fold every pair into its layer and make the model plain and trainable again."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear):
            _set_module(model, name, module.merged())
    model.requires_grad_(True)


def remove(model: nn.Module) -> None:
    """Drop every pair; the frozen weights are what they were."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear):
            _set_module(model, name, module.base)
    model.requires_grad_(True)


def adapter_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the trainable pairs by name."""
    for name, parameter in model.named_parameters():
        if name.endswith(("lora_a", "lora_b")):
            yield name, parameter


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
