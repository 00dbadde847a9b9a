"""Key maps of the families: which tensors a checkpoint of a specification has.

Qwen3 and others whose names are Llama's, but for parts that the specification switches on, use
Llama's map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from weft.core.errors import UnsupportedError, did_you_mean
from weft.models.families import llama
from weft.models.hf_keys import Rule
from weft.spec import ModelSpec


class KeyMap(NamedTuple):
    """The tensors of a family's checkpoints.

    Attributes:
        rules: Our tensors and theirs, from the specification.
        ignored: Patterns (``fnmatch``) of names that files may have and nobody needs.
    """

    rules: Callable[[ModelSpec], tuple[Rule, ...]]
    ignored: tuple[str, ...] = ()


KEY_MAPS: dict[str, KeyMap] = {
    "llama": KeyMap(llama.rules, ("*rotary_emb.inv_freq",)),
    "qwen3": KeyMap(llama.rules, ("*rotary_emb.inv_freq",)),
}


def key_map(spec: ModelSpec) -> KeyMap:
    """Return the key map of a specification's family."""
    if spec.family not in KEY_MAPS:
        raise UnsupportedError(
            f"there is no key map for family {spec.family!r}",
            fix=did_you_mean(spec.family, KEY_MAPS),
        )
    return KEY_MAPS[spec.family]


def rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the rules of a specification's family."""
    return key_map(spec).rules(spec)
