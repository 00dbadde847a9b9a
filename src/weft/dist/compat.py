"""The supported releases of torch, checked with a clear message.

A call that differs between them gets a function here, so that no other file asks for a version.
"""

from __future__ import annotations

import re

import torch

from weft.core.errors import UnsupportedError

Release = tuple[int, int]
OLDEST: Release = (2, 11)
NEWEST: Release = (2, 13)


def check_torch_version(version: str = torch.__version__) -> Release:
    """Return torch's (major, minor) release.

    Raises:
        UnsupportedError: A release outside 2.11 to 2.13.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    release: Release = (int(found[1]), int(found[2])) if found else (0, 0)
    if not OLDEST <= release <= NEWEST:
        raise UnsupportedError(
            f"torch {version} is installed; weft supports {_name(OLDEST)} to {_name(NEWEST)}",
            fix=f'pip install "torch>={_name(OLDEST)},<{NEWEST[0]}.{NEWEST[1] + 1}"',
        )
    return release


def _name(release: Release) -> str:
    return f"{release[0]}.{release[1]}"
