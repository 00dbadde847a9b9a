"""What every benchmark does with its results: store them with the machine and the options."""

from __future__ import annotations

import argparse
import json
from typing import Any

from weft.core.environment import describe_environment


def record(options: argparse.Namespace, results: Any, **facts: Any) -> None:
    """Write results to ``options.json``, if it is given, beside what they depend on."""
    if options.json is None:
        return
    document = {
        "environment": describe_environment(),
        **facts,
        "options": {name: value for name, value in vars(options).items() if name != "json"},
        "results": results,
    }
    options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
