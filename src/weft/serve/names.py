"""The names a request's ``model`` field can have: the model's own, and one for each adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from weft.core.errors import did_you_mean
from weft.serve.errors import NotFoundError


class LoadedAdapter(Protocol):
    """An adapter that requests can name."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...


class AdapterEngine(Protocol):
    """The part of ``weft.engine.async_engine.AsyncEngine`` that has adapters."""

    @property
    def adapters(self) -> Sequence[LoadedAdapter]: ...

    async def load_adapter(self, name: str, source: str, *, replace: bool = False) -> LoadedAdapter:
        """Load a folder under a name, a new one unless ``replace``.

        Raises:
            UserError: the name is taken, or the folder is no adapter of this model.
        """
        ...

    async def unload_adapter(self, name: str) -> None:
        """Take a name away.

        Raises:
            UserError: nothing of this name is loaded.
        """
        ...


class ServedNames:
    """The names a request's ``model`` field can have.

    Args:
        base: The model's own.
        engine: Knows the others; none has none.
    """

    def __init__(self, base: str, engine: AdapterEngine | None) -> None:
        self.base = base
        self._engine = engine

    @property
    def adapters(self) -> Sequence[LoadedAdapter]:
        """What is loaded now."""
        return () if self._engine is None else self._engine.adapters

    def adapter(self, name: str | None) -> str:
        """Return the adapter a name means; empty for the model itself, which no name means too.

        Raises:
            NotFoundError: nothing is served under this name.
        """
        if name in (None, self.base):
            return ""
        loaded = [adapter.name for adapter in self.adapters]
        if name not in loaded:
            choices = (self.base, *loaded)
            raise NotFoundError(
                f"the model {name!r} is not served here",
                fix=did_you_mean(str(name), choices) if loaded else f"use {self.base!r}",
                param="model",
                code="model_not_found",
            )
        return str(name)

    def cards(self) -> list[dict[str, Any]]:
        """Return what ``/v1/models`` says about each name."""
        base = {"id": self.base, "root": self.base, "parent": None}
        return [base] + [
            {"id": adapter.name, "root": adapter.source or adapter.name, "parent": self.base}
            for adapter in self.adapters
        ]
