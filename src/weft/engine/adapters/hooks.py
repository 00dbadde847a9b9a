"""``UpdateHooks``: hooks on linear layers that act in this engine's own step and nowhere else.

The module may belong to a trainer and to other engines too, in this thread or in another one. A
hook therefore does nothing unless its own engine is in a step, in the thread that runs it.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from weft.engine.adapters.update import RowGroups, SlotWeights, add_updates


class UpdateHooks:
    """Adds updates to the outputs of layers while a step is ``active``.

    Args:
        model: Whose layers get hooks. It may outlive the engine and does not keep it: hooks of an
            engine that is gone do nothing, and the next engine that hooks a layer takes them off.
        weights: The pairs by layer; read when a step runs.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, SlotWeights]) -> None:
        self._model = model
        self._weights = weights
        self._handles: dict[str, RemovableHandle] = {}
        self._step: tuple[int, RowGroups] | None = None

    def add(self, layer: str) -> None:
        """Hook a layer unless it is hooked already."""
        if layer not in self._handles:
            module = self._model.get_submodule(layer)
            _remove_dead(module)
            hook = _Hook(weakref.ref(self), layer)
            self._handles[layer] = module.register_forward_hook(hook)

    def remove(self) -> None:
        """Take all hooks off."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()

    @contextlib.contextmanager
    def active(self, groups: RowGroups) -> Iterator[None]:
        """Let the hooks act on calls by this thread."""
        self._step = threading.get_ident(), groups
        try:
            yield
        finally:
            self._step = None

    def update(self, layer: str, x_TI: Tensor, y_TO: Tensor) -> None:
        """Add the updates of the running step, if it is one of ours."""
        step = self._step
        if step is not None and step[0] == threading.get_ident():
            add_updates(y_TO, x_TI, self._weights[layer], step[1])


class _Hook:
    """A forward hook of one layer; on a copy of the module it does nothing."""

    def __init__(self, owner: Callable[[], UpdateHooks | None], layer: str) -> None:
        self._owner = owner
        self._layer = layer

    @property
    def is_dead(self) -> bool:
        """Whether nobody is left to act for."""
        return self._owner() is None

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        owner = self._owner()
        if owner is not None:
            owner.update(self._layer, args[0], output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (_nobody, self._layer)


def _nobody() -> None:
    return None


def _remove_dead(module: nn.Module) -> None:
    # Not when the engine is collected: that may be in the middle of a call of the same module.
    hooks = module._forward_hooks
    for number in [n for n, hook in hooks.items() if isinstance(hook, _Hook) and hook.is_dead]:
        del hooks[number]
