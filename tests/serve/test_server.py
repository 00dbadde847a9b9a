from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import BuildApp
from tests.serve.fakes import FakeEngine
from weft.core.errors import ResourceError
from weft.serve.limits import ServerConfig
from weft.serve.server import BackgroundServer, bind, next_free_port, run_server, url_of

ROOT = Path(__file__).parents[2]
STREAM = {"prompt": "a", "stream": True, "max_tokens": 10_000}


def test_a_port_in_use_names_the_next_free_one(build_app: BuildApp):
    with bind(ServerConfig(port=0)) as listener:
        port = listener.getsockname()[1]
        free = next_free_port("127.0.0.1", port)
        with pytest.raises(ResourceError) as caught:
            run_server(build_app(), ServerConfig(port=port))
    assert f"127.0.0.1:{port} is in use" in str(caught.value)
    assert f"--port {free}" in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_address_of_another_machine_is_a_clear_error():
    with pytest.raises(ResourceError, match="cannot listen on"):
        bind(ServerConfig(host="203.0.113.7", port=0))


def test_the_default_is_reachable_from_this_machine_only():
    with bind(ServerConfig(port=0)) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_the_url_can_be_opened():
    with bind(ServerConfig(port=0, host="0.0.0.0")) as listener:
        assert url_of(listener) == f"http://localhost:{listener.getsockname()[1]}"


def test_closing_lets_a_running_stream_finish(build_app: BuildApp, engine: FakeEngine):
    engine.reply, engine.pace_s = "x" * 100, 0.005
    config = ServerConfig(port=0)
    server = BackgroundServer(build_app(config, max_context=20_000), config)
    with server, httpx.stream("POST", f"{server.url}/v1/completions", json=STREAM) as response:
        lines = response.iter_lines()
        next(lines)
        closing = threading.Thread(target=server.close)
        closing.start()
        rest = list(lines)
        closing.join()
    assert rest[-2] == "data: [DONE]"
    assert engine.aborted == []


def test_a_drain_that_takes_too_long_aborts_what_is_left(build_app: BuildApp, engine: FakeEngine):
    engine.reply, engine.pace_s = "x" * 10_000, 0.01
    config = ServerConfig(port=0, drain_timeout_s=1.0)
    server = BackgroundServer(build_app(config, max_context=20_000), config)
    with server, httpx.stream("POST", f"{server.url}/v1/completions", json=STREAM) as response:
        lines = response.iter_lines()
        next(lines)
        server.close()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert engine.aborted == [engine.requests[0].id]


PROGRAM = """
import sys
from tests.serve.fakes import ByteTokenizer, FakeEngine
from weft.serve.app import create_app
from weft.serve.limits import ServerConfig
from weft.serve.server import run_server

engine = FakeEngine(reply="x" * 40, pace_s=0.02)
app = create_app(engine, ByteTokenizer(), "tiny", max_context=512)
run_server(app, ServerConfig(port=0), on_ready=lambda url: print(url, flush=True))
print("drained", engine.aborted, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_program_goes_on(number: signal.Signals):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    ) as process:
        url = process.stdout.readline().strip()
        body = {"prompt": "a", "stream": True, "max_tokens": 100}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=30) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(number)
            assert list(lines)[-2] == "data: [DONE]"
        assert process.stdout.readline().strip() == "drained []"
        assert process.wait(20) == 0


def test_a_connection_made_before_the_loop_runs_is_served(build_app: BuildApp):
    config = ServerConfig(port=0)
    server = BackgroundServer(build_app(config), config)
    early = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=20)
    with server, early:
        early.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert early.recv(100).startswith(b"HTTP/1.1 200")
