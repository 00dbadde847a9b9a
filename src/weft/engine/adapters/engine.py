"""``EngineAdapters``: loading, unloading and naming the adapters of one engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from weft.adapt.adapter import Adapter
from weft.adapt.peft import load_peft
from weft.core.errors import RequestError, UnsupportedError
from weft.engine.adapters.step import StepAdapters
from weft.engine.adapters.store import PARAM, AdapterInfo
from weft.spec.request import Request

if TYPE_CHECKING:
    from weft.engine.core import EngineCore

AdapterSource = str | Path | Adapter
_FIX = "set engine.adapters (EngineConfig(adapters=AdapterConfig()))"


class EngineAdapters:
    """The adapters that requests of one engine can name.

    Args:
        core: The engine.
        steps: What its runner computes with; none if it takes no adapters.
    """

    def __init__(self, core: EngineCore, steps: StepAdapters | None) -> None:
        self._core = core
        self._steps = steps
        self._held: dict[str, str] = {}

    @property
    def enabled(self) -> bool:
        """Whether this engine takes adapters."""
        return self._steps is not None

    def read(self, folder: str | Path) -> Adapter:
        """Read a PEFT folder for this engine's model; callable from any thread.

        Raises:
            InputFileError, UnsupportedError, CheckpointError: see ``weft.adapt.peft.load_peft``.
        """
        return load_peft(folder, self._core.model)

    def load(
        self, name: str, source: AdapterSource, *, folder: str = "", replace: bool = False
    ) -> AdapterInfo:
        """Give requests an adapter to name, from a PEFT folder or from tensors, which are copied.

        Args:
            name: What requests say.
            source: The folder, or the tensors.
            folder: Where tensors came from.
            replace: The name may be taken; requests under way finish with the old numbers.

        Raises:
            ConfigError: the name is taken or cannot be one, or the rank is too large.
            InputFileError, UnsupportedError, CheckpointError: it does not fit this model.
        """
        steps = self._check_enabled()
        adapter = source if isinstance(source, Adapter) else self.read(source)
        self._core.drain()  # a step under way reads the stacks that may grow
        folder = folder if source is adapter else str(source)
        steps.load(name, adapter, source=folder, replace=replace)
        return self.find(name)

    def unload(self, name: str) -> None:
        """Take a name away; requests that were accepted finish with it.

        Raises:
            ConfigError: nothing of this name is loaded.
        """
        self._check_enabled().store.unload(name)

    def list(self) -> Sequence[AdapterInfo]:
        """Return what is loaded, by name; callable from any thread."""
        return () if self._steps is None else self._steps.store.list()

    def find(self, name: str) -> AdapterInfo:
        """Return what is loaded under a name that is."""
        return next(info for info in self.list() if info.name == name)

    def close(self) -> None:
        """Unload everything and take the hooks off the model; idempotent."""
        if self._steps is not None:
            for info in self.list():
                self._steps.store.unload(info.name)
            self._steps.close()

    def resolve(self, request: Request) -> Request:
        """Return the request with the key of the adapter it names.

        Raises:
            RequestError: nothing of this name is loaded, or this engine takes no adapters.
        """
        if not request.adapter:
            return request
        if self._steps is None:
            raise RequestError(
                f"the request names the adapter {request.adapter!r}, and this engine takes none",
                fix=_FIX,
                param=PARAM,
            )
        return replace(request, adapter=self._steps.store.resolve(request.adapter))

    def hold(self, request: Request) -> None:
        """Keep the adapter of a request that was accepted."""
        if request.adapter and self._steps is not None:
            self._steps.store.hold(request.adapter)
            self._held[request.id] = request.adapter

    def release(self, request_id: str) -> None:
        """Let go of what a request that ended had."""
        key = self._held.pop(request_id, None)
        if key is not None and self._steps is not None:
            self._steps.store.release(key)

    def _check_enabled(self) -> StepAdapters:
        if self._steps is None:
            raise UnsupportedError("this engine takes no adapters", fix=_FIX)
        return self._steps
