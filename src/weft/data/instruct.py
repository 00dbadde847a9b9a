"""Conversations in the three formats of the field, one internal form: OpenAI messages.

::

    messages   {"messages": [{"role": "user", "content": "..."}, ...]}
    sharegpt   {"conversations": [{"from": "human", "value": "..."}, ...], "system": "..."}
    alpaca     {"instruction": "...", "input": "...", "output": "...",
                "system": "...", "history": [["question", "answer"], ...]}

Files are JSON Lines, or one JSON array (``.json``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from weft.core.errors import ConfigError, DataError, InputFileError, did_you_mean
from weft.core.files import require_file, write_atomic
from weft.data.jsonl import read_jsonl, to_line

Message = dict[str, Any]
Format = Literal["messages", "sharegpt", "alpaca"]

ROLES = ("system", "user", "assistant", "tool")
_FROM_SHAREGPT = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
_TO_SHAREGPT = {"user": "human", "assistant": "gpt", "system": "system", "tool": "tool"}
_MARKERS: dict[str, Format] = {
    "messages": "messages",
    "conversations": "sharegpt",
    "instruction": "alpaca",
}


def read_instructions(
    path: Path, format: Literal["auto"] | Format = "auto"
) -> Iterator[list[Message]]:
    """Yield the conversations of a file.

    ``"auto"`` decides by the keys of each record.

    Raises:
        InputFileError: the file is missing.
        DataError: a record is broken; the message names file, line and what to write instead.
    """
    if format not in ("auto", *_READERS):
        raise ConfigError(
            f"instruction format {format!r} is unknown", fix=did_you_mean(format, _READERS)
        )
    empty = True
    for where, record in read_records(Path(path)):
        empty = False
        yield to_messages(record, format, where=where)
    if empty:
        raise DataError(f"{path} has no records", fix="write one conversation on each line")


def write_instructions(
    path: Path, conversations: Iterable[Sequence[Mapping[str, Any]]], format: Format = "messages"
) -> None:
    """Write conversations as JSON Lines, atomically.

    Raises:
        DataError: a conversation has something the format cannot hold.
    """
    convert = _WRITERS[format]
    lines = [
        to_line(convert([dict(message) for message in conversation], f"conversation {number}"))
        for number, conversation in enumerate(conversations)
    ]
    write_atomic(Path(path), "".join(lines))


def to_messages(
    record: Any, format: Literal["auto"] | Format = "auto", *, where: str = "record"
) -> list[Message]:
    """Turn one record into messages.

    Raises:
        DataError: the record does not have the format's shape.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where} is not a JSON object", fix='write {"messages": [...]}')
    if format == "auto":
        found = [name for key, name in _MARKERS.items() if key in record]
        if not found:
            raise DataError(
                f"{where} is in no known format (its keys: {', '.join(map(str, record))})",
                fix="use the key messages, conversations or instruction",
            )
        format = found[0]
    messages = _READERS[format](record, where)
    check_messages(messages, where)
    return messages


def check_messages(messages: Sequence[Mapping[str, Any]], where: str) -> None:
    """Check roles and contents.

    Raises:
        DataError: no messages, an unknown role or a content that is not text.
    """
    if not messages:
        raise DataError(f"{where} has no messages", fix="write at least one, or delete the line")
    for number, message in enumerate(messages):
        place = f"{where}, message {number}"
        role = message.get("role")
        if role not in ROLES:
            raise DataError(f"{place} has the role {role!r}", fix=did_you_mean(str(role), ROLES))
        # An assistant message that only calls tools may have no text of its own.
        calls_only = role == "assistant" and message.get("tool_calls")
        if not isinstance(message.get("content"), str) and not calls_only:
            raise DataError(f"{place} has no text in content", fix="write a string")


def read_records(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield ``(where, record)`` of a JSON Lines file or of a JSON array."""
    path = require_file(path)
    if path.suffix.lower() != ".json":
        yield from read_jsonl(path)
        return
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not JSON: {error}", fix="correct it, or rename JSON Lines to .jsonl"
        ) from error
    except OSError as error:
        raise InputFileError(f"cannot read {path}: {error.strerror}", fix="check it") from error
    if not isinstance(records, list):
        raise DataError(f"{path} holds no JSON array", fix="write a list of records")
    for number, record in enumerate(records):
        yield f"{path}:record {number}", record


def _read_messages(record: dict[str, Any], where: str) -> list[Message]:
    messages = record.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise DataError(
            f"{where}: messages is not a list of objects",
            fix='write {"messages": [{"role": "user", "content": "..."}]}',
        )
    return [dict(message) for message in messages]


def _write_messages(messages: list[Message], where: str) -> dict[str, Any]:
    check_messages(messages, where)
    return {"messages": messages}


def _read_sharegpt(record: dict[str, Any], where: str) -> list[Message]:
    turns = record.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise DataError(
            f"{where}: conversations is not a list of objects",
            fix='write {"conversations": [{"from": "human", "value": "..."}]}',
        )
    messages = [{"role": "system", "content": record["system"]}] if record.get("system") else []
    for turn in turns:
        speaker = str(turn.get("from"))
        if speaker not in _FROM_SHAREGPT:
            raise DataError(
                f"{where}: a turn is from {speaker!r}", fix=did_you_mean(speaker, _FROM_SHAREGPT)
            )
        messages.append({"role": _FROM_SHAREGPT[speaker], "content": turn.get("value")})
    return messages


def _write_sharegpt(messages: list[Message], where: str) -> dict[str, Any]:
    check_messages(messages, where)
    _refuse_extra_keys(messages, where, "sharegpt")
    return {
        "conversations": [
            {"from": _TO_SHAREGPT[message["role"]], "value": message["content"]}
            for message in messages
        ]
    }


def _read_alpaca(record: dict[str, Any], where: str) -> list[Message]:
    for key in ("instruction", "output"):
        if not isinstance(record.get(key), str):
            raise DataError(
                f"{where} has no text under {key!r}",
                fix='write {"instruction": "...", "input": "", "output": "..."}',
            )
    messages = [{"role": "system", "content": record["system"]}] if record.get("system") else []
    for turn in record.get("history") or []:
        if not isinstance(turn, list) or len(turn) != 2:
            raise DataError(
                f"{where}: history has a turn that is no pair",
                fix='write [["question", "answer"], ...]',
            )
        messages.append({"role": "user", "content": turn[0]})
        messages.append({"role": "assistant", "content": turn[1]})
    question = "\n\n".join(text for text in (record["instruction"], record.get("input")) if text)
    messages.append({"role": "user", "content": question})
    messages.append({"role": "assistant", "content": record["output"]})
    return messages


def _write_alpaca(messages: list[Message], where: str) -> dict[str, Any]:
    check_messages(messages, where)
    _refuse_extra_keys(messages, where, "alpaca")
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    turns = messages[1:] if system is not None else messages
    roles = [message["role"] for message in turns]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise DataError(
            f"{where} has the roles {', '.join(roles)}; alpaca holds question and answer in turn",
            fix="write it as messages or sharegpt",
        )
    texts = [message["content"] for message in turns]
    record: dict[str, Any] = {"instruction": texts[-2], "input": "", "output": texts[-1]}
    if system is not None:
        record["system"] = system
    if len(texts) > 2:
        record["history"] = [texts[i : i + 2] for i in range(0, len(texts) - 2, 2)]
    return record


def _refuse_extra_keys(messages: list[Message], where: str, format: str) -> None:
    for message in messages:
        extra = sorted(set(message) - {"role", "content"})
        if extra:
            raise DataError(
                f"{where} has {', '.join(extra)}, which {format} cannot hold",
                fix="write it as messages",
            )


_READERS: dict[str, Callable[[dict[str, Any], str], list[Message]]] = {
    "messages": _read_messages,
    "sharegpt": _read_sharegpt,
    "alpaca": _read_alpaca,
}
_WRITERS: dict[str, Callable[[list[Message], str], dict[str, Any]]] = {
    "messages": _write_messages,
    "sharegpt": _write_sharegpt,
    "alpaca": _write_alpaca,
}
