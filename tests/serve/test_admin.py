"""The owner's endpoints: hidden without a key, and what they do to a live engine."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator

import httpx
import pytest
import torch

from tests.engine.support import tokenizer
from tests.engine.test_weights import make_model, scores
from weft.checkpoint.hf import save_model
from weft.core.errors import ConfigError
from weft.dist.ipc import SharedTensors
from weft.engine.async_engine import AsyncEngine
from weft.engine.config import EngineConfig
from weft.serve.limits import ServerConfig
from weft.serve.local import create_engine_app
from weft.serve.server import BackgroundServer

KEYS = ServerConfig(port=0, api_key="user", admin_key="owner")
PROMPT = {"prompt": "to weave", "max_tokens": 4, "temperature": 0, "ignore_eos": True}


class Server:
    def __init__(self, engine: AsyncEngine, url: str) -> None:
        self.engine = engine
        self._client = httpx.Client(base_url=url)

    def __call__(
        self,
        path: str,
        body: object = None,
        *,
        key: str = "owner",
        method: str = "POST",
        timeout_s: float = 60,
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return self._client.request(method, path, json=body, headers=headers, timeout=timeout_s)

    def get(self, path: str, **options):
        return self(path, method="GET", **options).json()

    def complete(self, *, timeout_s: float = 60, **fields) -> httpx.Response:
        return self("/v1/completions", {**PROMPT, **fields}, key="user", timeout_s=timeout_s)

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def server() -> Iterator[Server]:
    engine = AsyncEngine(make_model(2), tokenizer(), EngineConfig(num_blocks=64, block_size=4))
    app = create_engine_app(engine, tokenizer(), "tiny", KEYS)
    with BackgroundServer(app, KEYS) as background:
        served = Server(engine, background.url)
        yield served
        served.close()
    engine.shutdown()


PATHS = (
    "/pause", "/pause_generation", "/resume", "/continue_generation", "/sleep",
    "/release_memory_occupation", "/wake_up", "/resume_memory_occupation",
    "/update_weights_from_disk", "/update_weights_from_ipc", "/flush_cache",
    "/reset_prefix_cache", "/abort_request",
)  # fmt: skip
READ_PATHS = ("/is_paused", "/is_sleeping", "/get_weight_version")


def test_without_an_admin_key_there_is_nothing_to_find():
    engine = AsyncEngine(make_model(2), tokenizer(), EngineConfig(num_blocks=8))
    config = dataclasses.replace(KEYS, admin_key=None, api_key=None)
    with BackgroundServer(create_engine_app(engine, tokenizer(), "tiny", config), config) as it:
        for path in (*PATHS, *READ_PATHS):
            for method in ("GET", "POST"):
                assert httpx.request(method, it.url + path).status_code == 404, path
    engine.shutdown()


@pytest.mark.parametrize("key", ["user", "", "guess"])
def test_only_the_admin_key_opens(server, key):
    for path in PATHS:
        assert server(path, {}, key=key).status_code == 401, path
    for path in READ_PATHS:
        assert server(path, key=key, method="GET").status_code == 401, path
    assert server.engine.state == "running"
    # And it opens nothing else.
    assert server("/v1/completions", PROMPT, key="owner").status_code == 401


def test_the_admin_key_is_no_clients_key():
    with pytest.raises(ConfigError, match="every client has"):
        ServerConfig(api_key="a", admin_key="a")
    with pytest.raises(ConfigError, match="admin_key is empty"):
        ServerConfig(admin_key=" ")


def test_a_paused_server_is_alive_and_lets_requests_wait(server):
    assert server("/pause", {"mode": "in_place"}).json() == {"success": True, "status": "paused"}
    assert server.get("/is_paused") == {"is_paused": True}
    assert server.get("/health") == {"status": "paused"}
    with pytest.raises(httpx.ReadTimeout):
        server.complete(timeout_s=0.3)
    assert server("/resume", {}).json()["status"] == "running"
    assert server.complete().status_code == 200
    assert server.get("/health") == {"status": "ok"}


def test_parameters_may_stand_in_the_query_as_vllm_has_them(server):
    answer = server("/sleep?level=1&tags=kv_cache").json()
    assert answer["freed_bytes"] == server.engine.core.memory.kv_bytes
    assert server.get("/is_sleeping") == {"is_sleeping": True, "tags": ["kv_cache"]}
    assert server("/wake_up?tags=kv_cache").json()["status"] == "running"
    assert server("/pause?mode=retract").json()["status"] == "paused"
    assert server("/resume").json()["status"] == "running"


def test_a_sleeping_server_refuses_and_is_not_healthy(server):
    before = server.complete().json()["choices"]
    for path, body in (("/sleep", {}), ("/release_memory_occupation", {"tags": ["weights"]})):
        assert server(path, body).json()["freed_bytes"] > 0
        health = server("/health", method="GET")
        assert (health.status_code, health.json()) == (503, {"status": "asleep"})
        refused = server.complete()
        assert refused.status_code == 503
        assert "asleep" in refused.json()["error"]["message"]
        assert server("/resume_memory_occupation", {}).json()["status"] == "running"
    assert server.complete().json()["choices"] == before


def test_weights_from_disk_and_the_version(server, tmp_path):
    before = server.complete().json()["choices"][0]["text"]
    save_model(make_model(1), tmp_path)
    answer = server("/update_weights_from_disk", {"model_path": str(tmp_path)}).json()
    assert (answer["weight_version"], answer["num_tensors"] > 0) == (1, True)
    assert server.get("/get_weight_version") == {"weight_version": 1}
    assert torch.equal(scores(server.engine.core.model), scores(make_model(1)))
    assert server.complete().json()["choices"][0]["text"] != before
    body = {"model_path": str(tmp_path), "weight_version": 9}
    assert server("/update_weights_from_disk", body).json()["weight_version"] == 9
    wrong = server("/update_weights_from_disk", {"model_path": str(tmp_path / "none")})
    assert wrong.status_code == 400
    assert server.get("/get_weight_version") == {"weight_version": 9}


def test_weights_from_another_process_of_this_machine(server):
    with SharedTensors() as shared:
        handles = shared.share(make_model(1).state_dict())
        body = {"handles": [handle.to_json() for handle in handles.values()]}
        assert server("/update_weights_from_ipc", body).json()["weight_version"] == 1
        assert torch.equal(scores(server.engine.core.model), scores(make_model(1)))
        partly = server("/update_weights_from_ipc", {"handles": body["handles"][:1]})
        assert partly.status_code == 400
        assert server("/update_weights_from_ipc", {"handles": ["x"]}).status_code == 400


def test_flushed_prefixes_are_not_found(server):
    usage = []
    for flush in (False, False, True):
        if flush:
            assert server("/flush_cache", {}).status_code == 200
        answer = server.complete(prompt="to weave is to cross a weft with a warp").json()
        usage.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert usage[0] == usage[2] == 0 < usage[1]


def test_requests_are_aborted_by_the_answers_id_or_all(server):
    async def scenario():
        headers = {"authorization": "Bearer user"}
        async with httpx.AsyncClient(base_url=server._client.base_url, headers=headers) as client:
            server("/pause", {"mode": "in_place"})
            asked = [
                asyncio.create_task(client.post("/v1/completions", json={**PROMPT, "n": 2}))
                for _ in range(2)
            ]
            while server.engine.num_unfinished < 4:
                await asyncio.sleep(0.01)
            # Of the answer's first request; its other sample is a fork.
            rid = next(iter(server.engine._mailboxes)).rsplit("-", 1)[0]
            assert server("/abort_request", {"rid": rid}).json()["num_aborted"] == 2
            assert server("/abort_request", {}).status_code == 400
            assert server("/abort_request", {"abort_all": True}).json()["num_aborted"] == 2
            server("/resume", {})
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert asyncio.run(scenario()) == [503, 503]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/pause", {"mode": "keep"}),
        ("/sleep", {"level": 3}),
        ("/sleep", {"tags": ["graphs"]}),
        ("/sleep?level=9", None),
        ("/wake_up", {"level": 1}),
        ("/resume", {"mode": "abort"}),
        ("/update_weights_from_disk", {"path": "x"}),
    ],
)
def test_wrong_parameters_are_refused(server, path, body):
    assert server(path, body).status_code == 400
    assert server.engine.state == "running"


def test_metrics_tell_the_state(server):
    def lines() -> set[str]:
        return set(server("/metrics", method="GET", key="user").text.splitlines())

    assert 'weft_engine_state{model_name="tiny",state="running"} 1.0' in lines()
    server("/sleep", {"tags": ["weights"]})
    assert lines() >= {
        'weft_engine_state{model_name="tiny",state="asleep"} 1.0',
        'weft_engine_state{model_name="tiny",state="running"} 0.0',
        'weft_engine_asleep{model_name="tiny",tag="weights"} 1.0',
        'weft_engine_asleep{model_name="tiny",tag="kv_cache"} 0.0',
        'weft_weight_version{model_name="tiny"} 0.0',
    }
