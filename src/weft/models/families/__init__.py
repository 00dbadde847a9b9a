"""Key maps of the families: which tensors a checkpoint of a specification has."""

from __future__ import annotations

from collections.abc import Callable

from weft.core.errors import UnsupportedError, did_you_mean
from weft.models.families import llama, qwen3
from weft.models.hf_keys import Rule
from weft.spec import ModelSpec

KEY_MAPS: dict[str, Callable[[ModelSpec], tuple[Rule, ...]]] = {
    "llama": llama.rules,
    "qwen3": qwen3.rules,
}


def rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the key map of a specification's family."""
    if spec.family not in KEY_MAPS:
        raise UnsupportedError(
            f"there is no key map for family {spec.family!r}",
            fix=did_you_mean(spec.family, KEY_MAPS),
        )
    return KEY_MAPS[spec.family](spec)
