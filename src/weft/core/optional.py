"""The one gate to optional dependencies."""

from __future__ import annotations

import importlib
from types import ModuleType

from weft.core.errors import MissingExtraError


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional module or say which extra installs it.

    Raises:
        MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this needs the Python module {module!r}, which is not installed ({error})",
            fix=f'pip install "weft[{extra}]"',
        ) from error
