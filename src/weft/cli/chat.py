"""``weft chat``: talk to a model in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from weft.core.console import console

if TYPE_CHECKING:
    from weft.engine.llm import LLM
    from weft.spec import SamplingParams
    from weft.text.chat import Message


def chat(
    model: Path,
    message: str | None = None,
    *,
    system: str | None = None,
    temperature: float = 0.7,
    max_tokens: int = 256,
    seed: int | None = None,
) -> None:
    """Talk to a model in the terminal.

    Parameters
    ----------
    model
        Folder of a Hugging Face checkpoint with a chat template.
    message
        Ask this and end; none opens a conversation (Ctrl-D or an empty line ends it).
    system
        Instructions that stand before the conversation.
    temperature
        0 always takes the most likely token.
    max_tokens
        Longest answer.
    seed
        Same seed, same answer.
    """
    from weft.engine.llm import LLM
    from weft.spec import SamplingParams

    llm = LLM.load(model)
    sampling = SamplingParams(temperature=temperature, max_tokens=max_tokens, seed=seed)
    history: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    if message is not None:
        answer(llm, history, message, sampling)
        return
    while (line := _read_line()) is not None:
        answer(llm, history, line, sampling)


def answer(llm: LLM, history: list[Message], line: str, sampling: SamplingParams) -> None:
    """Stream the answer to one message and add both to the conversation."""
    history.append({"role": "user", "content": line})
    text = ""
    for delta in llm.stream(llm.render(history), sampling):
        console.print(delta.text, end="", markup=False, soft_wrap=True)
        text += delta.text
    console.print()
    history.append({"role": "assistant", "content": text})


def _read_line() -> str | None:
    try:
        return console.input("[bold]> [/bold]").strip() or None
    except EOFError:
        console.print()
        return None
