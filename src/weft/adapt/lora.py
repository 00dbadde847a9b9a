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

from weft.core.errors import ConfigError


@dataclass(frozen=True)
class LoRAConfig:
    """Which linear layers get a low-rank pair.

    Attributes:
        rank: r, the inner width of the pair.
        alpha: The update is scaled by alpha / rank.
        targets: Name patterns of linear modules.
        dropout: Share of the adapter's inputs dropped in training.
        seed: Seed of A's initialisation; B starts at zero, so that nothing changes at first.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("*.mixer.qkv", "*.mixer.out", "*.ffn.gate_up", "*.ffn.down")
    dropout: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"lora.rank is {self.rank}; it must be at least 1")


class LoRALinear(nn.Module):
    """A frozen linear layer with a trainable low-rank pair beside it."""

    def __init__(self, base: nn.Linear, config: LoRAConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = config.alpha / config.rank
        self.dropout = config.dropout
        where = {"device": base.weight.device, "dtype": base.weight.dtype}
        a_rI = torch.empty(config.rank, base.in_features)
        a_rI.uniform_(-1.0, 1.0, generator=generator).mul_(1.0 / math.sqrt(base.in_features))
        self.lora_a = nn.Parameter(a_rI.to(**where))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, config.rank, **where))

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


def _set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
