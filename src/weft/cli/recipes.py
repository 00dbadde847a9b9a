"""``weft recipes``: list, show and copy complete configurations."""

from __future__ import annotations

from pathlib import Path

from weft.cli.configs import recipe
from weft.core.config import to_toml
from weft.core.console import console, table
from weft.core.errors import InputFileError
from weft.core.files import write_atomic


def ls() -> None:
    """List the recipes."""
    from weft.recipes import RECIPES

    rows = [(name, entry.verb, entry.summary) for name, entry in sorted(RECIPES.items())]
    console.print(table("", ("recipe", "verb", "what it is"), rows, numbers=False))


def show(name: str) -> None:
    """Print one as TOML."""
    console.print(to_toml(recipe(name)), markup=False, soft_wrap=True, end="")


def cp(name: str, file: Path, *, force: bool = False) -> None:
    """Copy one to a file to edit.

    Parameters
    ----------
    name
        The recipe.
    file
        Where to write the TOML.
    force
        Replace a file that exists.
    """
    text = to_toml(recipe(name))
    if file.exists() and not force:
        raise InputFileError(f"{file} exists", fix="choose another name or add --force")
    write_atomic(file, text)
    console.print(f"wrote {file}", markup=False)
