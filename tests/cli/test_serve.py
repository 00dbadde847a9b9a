"""``weft serve`` of an encoder's folder."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tests.checkpoint.test_sentence import embedder
from tests.engine.adapters.support import adapter
from tests.engine.features.support import tiny
from tests.engine.support import tokenizer

from weft.adapt.peft import save_peft
from weft.checkpoint.hf import save_model
from weft.checkpoint.sentence import save_embedder
from weft.cli import serve
from weft.core.errors import ConfigError
from weft.engine.adapters.config import AdapterConfig
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


def test_adapters_are_named_on_the_command_line(tmp_path: Path):
    assert serve.named_folders(["poet=/a/b=c", "bard=x"]) == {
        "poet": Path("/a/b=c"),
        "bard": Path("x"),
    }
    for wrong in (["poet"], ["=x"], ["poet="]):
        with pytest.raises(ConfigError, match="write --adapter NAME=FOLDER"):
            serve.named_folders(wrong)
    with pytest.raises(ConfigError, match="two adapters are called 'a'"):
        serve.named_folders(["a=x", "a=y"])


def test_the_engine_gets_room_for_the_adapters_it_is_started_with(tmp_path: Path):
    fields = '{"peft_type": "LORA", "r": 8, "rank_pattern": {"q_proj": 32}}'
    (tmp_path / "adapter_config.json").write_text(fields)
    room = serve.with_room(EngineConfig(), {"a": tmp_path}).adapters
    assert room is not None
    assert room.max_rank == 32
    chosen = EngineConfig(adapters=AdapterConfig(max_loaded=2, max_rank=64))
    assert serve.with_room(chosen, {"a": tmp_path}) == chosen
    assert serve.with_room(EngineConfig(), {}).adapters == AdapterConfig()


def test_a_started_server_answers_for_its_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_model(tiny(), tmp_path / "tiny", tokenizer=tokenizer())
    save_peft(adapter(1), tmp_path / "poet", tiny())
    answers: list[httpx.Response] = []

    def run_server(app, config, *, on_ready):
        with servers.BackgroundServer(app, config) as server:
            for name in ("poet", "tiny"):
                body = {"model": name, "prompt": [5, 7, 11], "max_tokens": 6, "temperature": 0}
                body |= {"ignore_eos": True, "return_token_ids": True}
                answers.append(httpx.post(f"{server.url}/v1/completions", json=body))
            unload = {"lora_name": "poet"}
            answers.append(httpx.post(f"{server.url}/v1/unload_lora_adapter", json=unload))
            load = {"lora_name": "bard", "lora_path": str(tmp_path / "poet")}
            answers.append(httpx.post(f"{server.url}/v1/load_lora_adapter", json=load))
            answers.append(httpx.get(f"{server.url}/v1/models"))

    monkeypatch.setattr(servers, "run_server", run_server)
    config = EngineConfig(num_blocks=64, block_size=4, max_num_sequences=4)
    serve.run(
        tmp_path / "tiny",
        config,
        ServerConfig(port=0, allow_adapter_updates=True),
        adapters={"poet": tmp_path / "poet"},
        on_ready=lambda url: None,
    )
    assert [answer.status_code for answer in answers] == [200] * 5
    poet, plain = (answer.json()["choices"][0]["token_ids"] for answer in answers[:2])
    assert len(poet) == len(plain) == 6
    assert poet != plain
    assert [card["id"] for card in answers[4].json()["data"]] == ["tiny", "bard"]
