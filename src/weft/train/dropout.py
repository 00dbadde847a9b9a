"""Dropout (Srivastava et al. 2014), applied to a model from outside.

Models describe what is served; dropout exists in training only. Hooks add it where the original
Transformer has it (arXiv:1706.03762, section 5.4): on the embeddings and on what each branch of a
block adds to the residual stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from weft.core.errors import ConfigError
from weft.models.decoder import Block, Decoder
from weft.models.encoder import Encoder


@contextlib.contextmanager
def dropout(model: nn.Module, rate: float) -> Iterator[None]:
    """Drop each number of embeddings and branches with this probability while in training mode.

    Raises:
        ConfigError: the rate is not in [0, 1).
    """
    if not 0.0 <= rate < 1.0:
        raise ConfigError(f"dropout is {rate}; it must be at least 0 and below 1")

    def drop(x: Tensor) -> Tensor:
        return F.dropout(x, rate, training=model.training)

    def before(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (drop(arguments[0]), *arguments[1:])

    def after(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        return drop(output)

    with contextlib.ExitStack() as hooks:
        for module in model.modules() if rate else ():
            if isinstance(module, Encoder | Decoder):
                first: nn.Module = module.layers[0]
                hooks.callback(first.register_forward_pre_hook(before).remove)
            elif isinstance(module, Block):
                for branch in (module.mixer, module.cross, module.ffn):
                    if branch is not None:
                        hooks.callback(branch.register_forward_hook(after).remove)
        yield
