"""``weft generate``: continue a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.core.console import console


def generate(
    model: Path,
    prompt: str,
    *,
    max_tokens: int = 100,
    temperature: float = 0.8,
    top_p: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
    stop: tuple[str, ...] = (),
    json_output: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Continue a text.

    Parameters
    ----------
    model
        Folder of a Hugging Face checkpoint.
    prompt
        The text to continue.
    max_tokens
        Stop after this many tokens.
    temperature
        0 always takes the most likely token.
    top_p
        Keep the smallest set of tokens with this much probability.
    top_k
        Keep this many tokens.
    seed
        Same seed, same text.
    stop
        Texts that end the generation.
    json_output
        Print the tokens and log-probabilities as JSON.
    """
    from weft.engine.llm import LLM
    from weft.spec import SamplingParams

    sampling = SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        stop=stop,
        logprobs=0 if json_output else None,
    )
    completion = LLM.load(model).generate([prompt], sampling)[0]
    if json_output:
        record = {
            "text": completion.text,
            "tokens": list(completion.tokens),
            "logprobs": list(completion.logprobs),
            "finish_reason": str(completion.finish_reason),
        }
        console.print(json.dumps(record, ensure_ascii=False), markup=False, soft_wrap=True)
    else:
        console.print(prompt + completion.text, markup=False, soft_wrap=True)
