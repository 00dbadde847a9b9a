"""``weft serve`` of an encoder's folder."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tests.checkpoint.test_sentence import embedder

from weft.checkpoint.sentence import save_embedder
from weft.cli import serve
from weft.core.errors import ConfigError
from weft.engine.config import EngineConfig
from weft.serve import server as servers
from weft.serve.limits import ServerConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_embedder(embedder(), tmp_path / "bert")
    return tmp_path / "bert"


def test_an_encoders_folder_serves_embeddings(folder: Path, monkeypatch: pytest.MonkeyPatch):
    answers: list[httpx.Response] = []

    def run_server(app, config, *, on_ready):
        with servers.BackgroundServer(app, config) as server:
            on_ready(server.url)
            answers.append(httpx.post(f"{server.url}/v1/embeddings", json={"input": "a b"}))
            answers.append(httpx.get(f"{server.url}/v1/models"))

    urls: list[str] = []
    monkeypatch.setattr(servers, "run_server", run_server)
    serve.run(folder, EngineConfig(), ServerConfig(port=0), on_ready=urls.append)
    vector = answers[0].json()["data"][0]["embedding"]
    assert vector == pytest.approx(embedder().embed(["a b"])[0].tolist(), abs=1e-5)
    assert answers[1].json()["data"][0]["id"] == "bert"
    assert urls[0].startswith("http://127.0.0.1:")


def test_engine_settings_of_an_encoder_are_refused(folder: Path):
    with pytest.raises(ConfigError, match="leave the engine settings out"):
        serve.run(folder, EngineConfig(max_num_sequences=4), ServerConfig(port=0))
