"""Floor 10: complete configurations as Python functions.

- ``jobs.py``        what a verb needs besides its algorithm's configuration: the input folders.
- ``moe.py``         experts, and their comparison with a dense model of equal active parameters.
- ``speculator.py``  drafting heads: their training, and how speculation is measured.
- ``translation.py`` machine translation, and the course's Transformer.
- ``quickstart.py``  the quick start: how a number of minutes becomes five configurations.

``RECIPES`` lists them by name; building one imports what it configures, listing them does not.
``weft recipes cp NAME FILE.toml`` writes one out to be edited.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """A named configuration.

    Attributes:
        verb: The command that takes it.
        summary: One line for people.
        target: ``module:function`` that returns the configuration.
    """

    verb: str
    summary: str
    target: str

    def build(self) -> Any:
        """Return the configuration."""
        module, _, function = self.target.partition(":")
        return getattr(importlib.import_module(module), function)()


RECIPES: dict[str, Recipe] = {
    "corpus": Recipe(
        "data build",
        "the running Python's standard library, cleaned and deduplicated",
        "weft.data.build:CorpusConfig",
    ),
    "pretrain": Recipe(
        "train",
        "a 3M-parameter decoder for one CPU, minutes",
        "weft.recipes.jobs:pretrain",
    ),
    "pretrain-10m": Recipe(
        "train",
        "a 10M-parameter Qwen3-shaped decoder, hours on a CPU",
        "weft.recipes.jobs:pretrain_10m",
    ),
    "pretrain-moe": Recipe(
        "train",
        "8 experts, 2 per token, as many active parameters as pretrain",
        "weft.recipes.moe:pretrain_moe",
    ),
    "sft": Recipe("sft", "fine-tune on a generated task or chats", "weft.recipes.jobs:sft"),
    "grpo": Recipe("grpo", "GRPO on a task with checkable answers", "weft.recipes.jobs:grpo"),
    "eval": Recipe("eval", "bits per byte and exact match", "weft.recipes.jobs:evaluation"),
    "translation": Recipe(
        "translate train",
        "an encoder-decoder for sentence pairs, half an hour on two CPU cores",
        "weft.recipes.translation:translation",
    ),
    "speculator": Recipe(
        "speculator train",
        "an EAGLE head for a model, minutes",
        "weft.recipes.speculator:speculator",
    ),
    "speculator-eval": Recipe(
        "speculator eval",
        "acceptance and speed-up of one kind of guesses",
        "weft.recipes.speculator:speculator_eval",
    ),
    "quickstart": Recipe(
        "quickstart",
        "raw text to a chat in the browser in ten minutes",
        "weft.recipes.quickstart:QuickstartConfig",
    ),
}
