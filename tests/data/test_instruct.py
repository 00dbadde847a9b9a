from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError, DataError, InputFileError
from weft.data.instruct import (
    _WRITERS,
    read_instructions,
    to_messages,
    write_instructions,
)
from weft.data.preference import Preference, read_preferences, write_preferences

texts = st.text(min_size=1, max_size=30)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Questions and answers in turn, with or without a system message."""
    messages = [{"role": "system", "content": draw(texts)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(texts)})
        messages.append({"role": "assistant", "content": draw(texts)})
    return messages


@given(messages=conversations(), format=st.sampled_from(["messages", "sharegpt", "alpaca"]))
def test_every_format_round_trips_and_is_detected(messages: list, format: Any) -> None:
    record = json.loads(json.dumps(_WRITERS[format](messages, "here")))
    assert to_messages(record) == messages
    assert to_messages(record, format) == messages


def test_files_round_trip_in_every_format(tmp_path: Path) -> None:
    data = [
        [{"role": "user", "content": "Grüße\u2028?"}, {"role": "assistant", "content": "a\nb"}],
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}],
    ]
    for format in ("messages", "sharegpt", "alpaca"):
        path = tmp_path / f"{format}.jsonl"
        write_instructions(path, data, format)
        assert list(read_instructions(path)) == data


def test_known_records_of_each_format() -> None:
    alpaca = {
        "instruction": "Add.",
        "input": "1 2",
        "output": "3",
        "system": "Be brief.",
        "history": [["hi", "hello"]],
    }
    assert to_messages(alpaca) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "Add.\n\n1 2"},
        {"role": "assistant", "content": "3"},
    ]
    sharegpt = {
        "system": "s",
        "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
    }
    assert [m["role"] for m in to_messages(sharegpt)] == ["system", "user", "assistant"]


def test_messages_keep_tool_calls_and_other_formats_refuse_them() -> None:
    messages = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "sunny", "tool_call_id": "1"},
    ]
    assert to_messages({"messages": messages}) == messages
    with pytest.raises(DataError, match="tool_calls, which sharegpt cannot hold"):
        _WRITERS["sharegpt"](messages, "here")
    with pytest.raises(DataError, match="alpaca holds question and answer in turn"):
        _WRITERS["alpaca"]([{"role": "user", "content": "q"}], "here")


def test_json_array_is_read(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"instruction": "q", "output": "a"}]))
    assert len(list(read_instructions(path))) == 1
    path.write_text('{"a": 1}')
    with pytest.raises(DataError, match="no JSON array"):
        list(read_instructions(path))
    path.write_text("[")
    with pytest.raises(DataError, match="is not JSON"):
        list(read_instructions(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not JSON"),
        ("3", "is not a JSON object"),
        ('{"text": "x"}', r"no known format \(its keys: text\)"),
        ('{"messages": "x"}', "messages is not a list"),
        ('{"messages": []}', "has no messages"),
        ('{"messages": [{"role": "asistant", "content": "x"}]}', "role 'asistant'"),
        ('{"messages": [{"role": "user", "content": 3}]}', "message 0 has no text in content"),
        ('{"conversations": [{"from": "alien", "value": "x"}]}', "from 'alien'"),
        ('{"conversations": [{"from": "human"}]}', "message 0 has no text"),
        ('{"conversations": {}}', "conversations is not a list"),
        ('{"instruction": "x"}', "no text under 'output'"),
        ('{"instruction": "x", "output": "y", "history": [["a"]]}', "no pair"),
    ],
)
def test_broken_record_names_file_line_and_fix(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"instruction": "q", "output": "a"}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"d\.jsonl:2.*{message}") as error:
        list(read_instructions(path))
    assert error.value.fix


def test_missing_empty_and_unknown(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="there is no file"):
        list(read_instructions(tmp_path / "no.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="has no records"):
        list(read_instructions(tmp_path / "empty.jsonl"))
    with pytest.raises(ConfigError, match="'alpacca' is unknown"):
        list(read_instructions(tmp_path / "empty.jsonl", "alpacca"))  # pyrefly: ignore


def message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_preferences_round_trip_and_accept_plain_text(tmp_path: Path) -> None:
    pair = Preference(
        [message("user", "q")], [message("assistant", "good")], [message("assistant", "bad")]
    )
    path = tmp_path / "p.jsonl"
    write_preferences(path, [pair, pair])
    assert list(read_preferences(path)) == [pair, pair]
    path.write_text('{"prompt": "q", "chosen": "good", "rejected": "bad"}')
    assert list(read_preferences(path)) == [pair]
    implicit = {"chosen": [*pair.prompt, *pair.chosen], "rejected": [*pair.prompt, *pair.rejected]}
    path.write_text(json.dumps(implicit))
    assert list(read_preferences(path)) == [pair]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"prompt": "q", "chosen": "a"}', "no chosen and rejected"),
        ('{"prompt": "q", "chosen": "a", "rejected": "a"}', "do not differ"),
        ('{"chosen": "a", "rejected": "b"}', "no prompt"),
        ('{"prompt": 3, "chosen": "a", "rejected": "b"}', "neither text nor messages"),
    ],
)
def test_broken_preferences_are_named(tmp_path: Path, line: str, text: str) -> None:
    (tmp_path / "p.jsonl").write_text(line)
    with pytest.raises(DataError, match=rf"p\.jsonl:1.*{text}"):
        list(read_preferences(tmp_path / "p.jsonl"))
