"""Preference pairs: one prompt, an answer that is better and one that is worse.

::

    {"prompt": "..." or [messages], "chosen": "..." or [messages], "rejected": ...}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.core.errors import DataError
from weft.core.files import write_atomic
from weft.data.instruct import Message, check_messages, read_records
from weft.data.jsonl import to_line


@dataclass(frozen=True)
class Preference:
    """A prompt with two continuations, all as messages."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


def read_preferences(path: Path) -> Iterator[Preference]:
    """Yield the pairs of a file; plain texts become a user and an assistant message.

    Without ``prompt``, the messages that both answers begin with are the prompt.

    Raises:
        InputFileError: the file is missing.
        DataError: a record is broken, or both answers are the same.
    """
    for where, record in read_records(Path(path)):
        yield _to_preference(record, where)


def write_preferences(path: Path, preferences: Iterable[Preference]) -> None:
    """Write pairs as JSON Lines of messages, atomically."""
    write_atomic(Path(path), "".join(to_line(vars(pair)) for pair in preferences))


def _to_preference(record: Any, where: str) -> Preference:
    if not isinstance(record, dict) or not {"chosen", "rejected"} <= record.keys():
        raise DataError(
            f"{where} has no chosen and rejected",
            fix='write {"prompt": "...", "chosen": "...", "rejected": "..."}',
        )
    chosen = _messages(record["chosen"], "assistant", f"{where}, chosen")
    rejected = _messages(record["rejected"], "assistant", f"{where}, rejected")
    if "prompt" in record:
        prompt = _messages(record["prompt"], "user", f"{where}, prompt")
    else:
        shared = 0
        while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
            shared += 1
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    if not prompt or not chosen or not rejected or chosen == rejected:
        raise DataError(
            f"{where} has no prompt, or chosen and rejected do not differ",
            fix="give a prompt and two different answers",
        )
    return Preference(prompt, chosen, rejected)


def _messages(value: Any, role: str, where: str) -> list[Message]:
    messages = [{"role": role, "content": value}] if isinstance(value, str) else value
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise DataError(f"{where} is neither text nor messages", fix="write a string")
    check_messages(messages, where)
    return [dict(message) for message in messages]
