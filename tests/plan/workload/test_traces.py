from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.plan.workload.traces import read_azure, read_mooncake, stretch

GOOD = {"timestamp": 1500, "input_length": 1000, "output_length": 0, "hash_ids": [0, 3]}
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n")
    return path


def test_mooncake_times_are_milliseconds_and_blocks_hold_512_tokens(tmp_path):
    (arrival,) = read_mooncake(write(tmp_path / "t.jsonl", GOOD))
    assert (arrival.time_s, arrival.num_prompt_tokens, arrival.num_output_tokens) == (1.5, 1000, 1)
    assert (arrival.block_hashes, arrival.hash_block_size) == ((0, 3), 512)


def test_mooncake_requests_with_equal_block_names_share_a_prefix(tmp_path):
    other = {**GOOD, "hash_ids": [0, 4]}
    first, second = read_mooncake(write(tmp_path / "t.jsonl", GOOD, other))
    assert first.prompt(0)[:512] == second.prompt(1)[:512]
    assert not set(first.prompt(0)[512:]) & set(second.prompt(1)[512:])


def test_limit_stops_before_a_bad_line(tmp_path):
    path = write(tmp_path / "t.jsonl", GOOD, GOOD, "nonsense")
    assert len(read_mooncake(path, limit=2)) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{not json", "not a request"),
        ("[1, 2]", "not a request"),
        ({"timestamp": 1, "input_length": 5, "output_length": 5}, "there is no 'hash_ids'"),
        ({**GOOD, "input_length": 0}, "cannot arrive"),
        ({**GOOD, "input_length": "many"}, "'many' is no whole number"),
        ({**GOOD, "timestamp": -5}, "cannot arrive"),
    ],
)
def test_a_bad_line_names_file_and_number_and_shows_a_good_one(tmp_path, line, words):
    path = write(tmp_path / "t.jsonl", GOOD, line)
    with pytest.raises(ConfigError, match=words) as caught:
        read_mooncake(path)
    assert f"{path}:2:" in str(caught.value)
    assert "hash_ids" in str(caught.value.fix)


def test_azure_times_start_at_the_first_request(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        AZURE + "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,0\n"
    )
    first, second = read_azure(path)
    assert (first.time_s, first.num_prompt_tokens, first.num_output_tokens) == (0.0, 4808, 10)
    assert second.time_s == pytest.approx(0.052)
    assert second.num_output_tokens == 1


@pytest.mark.parametrize(
    "line", ["2023-11-16 18:17:03,ten,10", "yesterday,10,10", "2023-11-16 18:17:03,10"]
)
def test_a_bad_azure_line_is_named(tmp_path, line):
    path = tmp_path / "a.csv"
    path.write_text(AZURE + "2023-11-16 18:17:03,5,5\n" + line + "\n")
    with pytest.raises(ConfigError) as caught:
        read_azure(path)
    assert f"{path}:3:" in str(caught.value)


def test_other_columns_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("time,in,out\n")
    with pytest.raises(ConfigError, match="columns are time, in, out"):
        read_azure(path)


def test_stretching_changes_only_times(tmp_path):
    (arrival,) = stretch(read_mooncake(write(tmp_path / "t.jsonl", GOOD)), 0.5)
    assert arrival.time_s == 0.75
    assert arrival.num_prompt_tokens == 1000
    with pytest.raises(ConfigError, match="factor is 0"):
        stretch((arrival,), 0.0)


@given(st.text(max_size=40))
def test_no_line_breaks_the_reader_in_another_way(tmp_path_factory, line):
    path = tmp_path_factory.mktemp("fuzz") / "t.jsonl"
    path.write_text(line)
    with contextlib.suppress(ConfigError):
        assert read_mooncake(path) == ()
