"""What callers may pass for prompts and for what belongs to each of them: one or several."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import cast

from weft.core.errors import ConfigError
from weft.spec.sampling import SamplingParams

Prompt = str | Sequence[int]


def list_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """Tell one prompt from several: a text or a run of numbers is one."""
    if isinstance(prompts, str):
        return [prompts]
    if len(prompts) > 0 and all(isinstance(item, Integral) for item in prompts):
        return [cast(Sequence[int], prompts)]
    return list(cast(Sequence[Prompt], prompts))


def sampling_per_prompt(
    sampling: SamplingParams | Sequence[SamplingParams] | None, num_prompts: int
) -> list[SamplingParams]:
    """Return the parameters of each prompt.

    Raises:
        ConfigError: neither one for all nor one for each.
    """
    if sampling is None or isinstance(sampling, SamplingParams):
        return [sampling or SamplingParams()] * num_prompts
    if len(sampling) != num_prompts:
        raise ConfigError(
            f"{len(sampling)} sampling parameters for {num_prompts} prompts",
            fix="give one for all prompts or one for each",
        )
    return list(sampling)


def adapter_per_prompt(
    adapter: str | Sequence[str | None] | None, num_prompts: int
) -> list[str | None]:
    """Return the name of each prompt's adapter, none where it has none.

    Raises:
        ConfigError: neither one for all nor one for each.
    """
    if adapter is None or isinstance(adapter, str):
        return [adapter] * num_prompts
    if len(adapter) != num_prompts:
        raise ConfigError(
            f"{len(adapter)} adapters for {num_prompts} prompts",
            fix="name one for all prompts or one for each",
        )
    return list(adapter)
