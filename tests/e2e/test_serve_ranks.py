"""``weft serve`` with two ranks, as a user of a terminal meets it: answers, Ctrl-C, a dead rank."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.support import VOCAB_SIZE, tokenizer

from weft.checkpoint.hf import save_model
from weft.models.decoder import Decoder
from weft.spec import ModelShape

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are found in /proc"),
]

SHAPE = ModelShape(dim=32, num_layers=2, num_heads=4, num_kv_heads=2, context_length=4096)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(Decoder(SHAPE.build(VOCAB_SIZE), seed=1), folder, tokenizer=tokenizer())
    return folder


class Server:
    """A server in a session of its own, so that Ctrl-C reaches it and its ranks alone."""

    def __init__(self, model: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "weft", "serve", str(model), "--port", "0",
             "--parallel.tensor", "2", "--num-blocks", "512", "--name", "tiny"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.output = ""
        self.url = self._read_url()

    @property
    def processes(self) -> set[int]:
        """Every process of the session that is alive."""
        return {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._has(pid)}

    @property
    def rank_1(self) -> int:
        (rank,) = self.processes - {self.process.pid}
        return rank

    def ask(self, path: str, body: dict | None = None) -> tuple[int, str]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> int:
        self.output += self.process.communicate(timeout=60)[0]
        return self.process.returncode

    def _has(self, pid: int) -> bool:
        try:
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        return int(status[3]) == self.process.pid and status[0] != "Z"

    def _read_url(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if found := re.search(r"http://[\d.:]+", line):
                return found.group()
        raise AssertionError(self.output)


@pytest.fixture
def server(model: Path) -> Iterator[Server]:
    server = Server(model)
    yield server
    if server.processes:
        os.killpg(server.process.pid, signal.SIGKILL)
        server.wait()


def chat(max_tokens: int) -> dict:
    message = {"role": "user", "content": "Weave."}
    return {
        "model": "tiny", "messages": [message], "max_tokens": max_tokens, "temperature": 0.0,
        "ignore_eos": True,
    }  # fmt: skip


def test_two_ranks_answer_and_ctrl_c_leaves_no_process(server: Server) -> None:
    assert server.ask("/health")[0] == 200
    assert len(server.processes) == 2
    status, text = server.ask("/v1/chat/completions", chat(5))
    assert status == 200, text
    assert json.loads(text)["usage"]["completion_tokens"] == 5
    server.press_ctrl_c()
    assert server.wait() == 0, server.output
    assert not server.processes
    assert "Traceback" not in server.output


def test_a_killed_rank_fails_requests_by_name_and_the_server_lives_until_ctrl_c(
    server: Server,
) -> None:
    body = {**chat(3000), "stream": True}
    request = urllib.request.Request(server.url + "/v1/chat/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert b"data:" in answer.readline()
        os.kill(server.rank_1, signal.SIGKILL)
        assert "rank 1 died (exit code -9)" in answer.read().decode()
    status, text = server.ask("/health")
    assert status == 503
    status, text = server.ask("/v1/chat/completions", chat(5))
    assert status == 503
    assert "the engine has stopped" in text
    assert server.processes == {server.process.pid}
    server.press_ctrl_c()
    assert server.wait() == 0, server.output
    assert not server.processes
