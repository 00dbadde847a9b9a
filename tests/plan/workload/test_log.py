from __future__ import annotations

import json

import pytest

from weft.core.errors import ConfigError
from weft.plan.workload.log import RequestRecord, log_arrivals, read_log, write_log

RECORDS = (
    RequestRecord(7.5, 100, 20, 7.9, 9.0, num_cached_tokens=16, block_hashes=(1, 2)),
    RequestRecord(7.0, 50, 10),
)


def test_a_log_reads_back_as_it_was_written(tmp_path):
    write_log(tmp_path / "log.jsonl", RECORDS)
    assert read_log(tmp_path / "log.jsonl") == RECORDS


def test_a_log_is_a_workload_that_starts_at_zero():
    first, second = log_arrivals(RECORDS)
    assert (first.time_s, first.num_prompt_tokens) == (0.0, 50)
    assert (second.time_s, second.num_output_tokens, second.block_hashes) == (0.5, 20, (1, 2))


@pytest.mark.parametrize(
    "line",
    [
        "}",
        "3",
        '{"arrival_s": 1.0}',
        json.dumps({"arrival_s": 0, "num_prompt_tokens": 0, "num_output_tokens": 1}),
        json.dumps({"arrival_s": 0, "num_prompt_tokens": 1, "num_output_tokens": 1, "ttft": 1}),
    ],
)
def test_a_bad_line_names_file_and_number(tmp_path, line):
    path = tmp_path / "log.jsonl"
    write_log(path, RECORDS)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ConfigError) as caught:
        read_log(path)
    assert f"{path}:3:" in str(caught.value)
