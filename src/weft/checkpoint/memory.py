"""Memory for weights that are about to be read from disk."""

from __future__ import annotations

import contextlib
import mmap

import torch
from torch import Tensor, nn

# Below this a tensor shares pages with others and gains nothing.
HUGE_PAGE_TENSOR_BYTES = 4 * 2**20


def empty_weights(like: Tensor, device: torch.device) -> Tensor:
    """Return an uninitialised tensor on ``device``; large ones on huge pages where Linux has them.

    The kernel clears every page it hands out: with pages of 4 KiB that takes as long as reading
    the file does, with pages of 2 MiB a tenth of it.
    """
    size_bytes = like.numel() * like.element_size()
    if device.type != "cpu" or size_bytes < HUGE_PAGE_TENSOR_BYTES:
        return torch.empty_like(like, device=device)
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None:
        return torch.empty_like(like, device=device)
    pages = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel built without huge pages: ordinary ones do
        pages.madvise(advice)
    return torch.frombuffer(pages, dtype=like.dtype, count=like.numel()).view(like.shape)


def materialise(model: nn.Module, device: torch.device | str) -> None:
    """Give the parameters and buffers of a model on the meta device uninitialised memory."""
    device = torch.device(device)
    done: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in done:
                values = empty_weights(parameter.detach(), device)
                done[id(parameter)] = nn.Parameter(values, parameter.requires_grad)
            setattr(module, name, done[id(parameter)])
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, empty_weights(buffer, device))
