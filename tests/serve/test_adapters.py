"""Adapters as model names, and loading them over HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.serve.conftest import BuildApp, Post
from tests.serve.fakes import FakeEngine
from weft.core.errors import InputFileError
from weft.serve.limits import ServerConfig

ALLOWED = ServerConfig(allow_adapter_updates=True)
MESSAGES = [{"role": "user", "content": "hi"}]


@dataclass(frozen=True)
class FakeAdapter:
    name: str
    source: str


@dataclass
class FakeAdapters:
    """Holds names; a folder called "broken" cannot be loaded."""

    adapters: list[FakeAdapter] = field(default_factory=lambda: [FakeAdapter("poet", "/a/poet")])

    async def load_adapter(self, name: str, source: str, *, replace: bool = False) -> FakeAdapter:
        if source == "broken":
            raise InputFileError("'broken' has no adapter_config.json", fix="give the folder")
        self.adapters = [adapter for adapter in self.adapters if adapter.name != name]
        self.adapters.append(FakeAdapter(name, source))
        return self.adapters[-1]

    async def unload_adapter(self, name: str) -> None:
        self.adapters = [adapter for adapter in self.adapters if adapter.name != name]


@pytest.fixture
def adapters() -> FakeAdapters:
    return FakeAdapters()


@pytest.fixture
def call(build_app: BuildApp, adapters: FakeAdapters) -> Post:
    return Post(build_app(ALLOWED, adapters=adapters))


def test_adapters_are_listed_beside_their_model(call: Post) -> None:
    base, poet = call("/v1/models").json()["data"]
    assert (base["id"], base["root"], base["parent"]) == ("tiny", "tiny", None)
    assert (poet["id"], poet["root"], poet["parent"]) == ("poet", "/a/poet", "tiny")
    assert call("/v1/models/poet").json() == poet
    assert call("/v1/models/poem").status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/completions", {"prompt": "a"}), ("/v1/chat/completions", {"messages": MESSAGES})],
)
def test_the_model_field_chooses_the_adapter(
    path: str, body: dict, call: Post, engine: FakeEngine
) -> None:
    for name, adapter in (("poet", "poet"), ("tiny", ""), (None, "")):
        answer = call(path, {**body, **({} if name is None else {"model": name})}).json()
        assert answer["model"] == (name or "tiny")
        assert engine.requests[-1].adapter == adapter
    stream = call(path, {**body, "model": "poet", "stream": True}).text
    assert '"model":"poet"' in stream.replace(" ", "")


def test_an_unknown_name_is_not_found_and_the_nearest_is_named(call: Post) -> None:
    response = call("/v1/completions", {"model": "poets", "prompt": "a"})
    assert response.status_code == 404
    assert "did you mean 'poet'?" in response.json()["error"]["message"]
    assert response.json()["error"]["code"] == "model_not_found"


def test_vectors_and_scores_are_of_the_model_alone(call: Post) -> None:
    response = call("/v1/score", {"model": "poet", "text_1": "a", "text_2": "b"})
    assert response.status_code == 400
    assert "'poet' is an adapter" in response.json()["error"]["message"]


def test_tokenizing_takes_any_served_name(call: Post) -> None:
    assert call("/tokenize", {"model": "poet", "prompt": "a"}).json()["count"] == 1
    assert call("/detokenize", {"model": "poem", "tokens": [97]}).status_code == 404


def test_an_adapter_is_loaded_used_and_unloaded(call: Post, adapters: FakeAdapters) -> None:
    response = call("/v1/load_lora_adapter", {"lora_name": "bard", "lora_path": "/a/bard"})
    assert response.status_code == 200
    assert response.text == "Success: LoRA adapter 'bard' added successfully."
    assert call("/v1/completions", {"model": "bard", "prompt": "a"}).status_code == 200
    response = call("/v1/unload_lora_adapter", {"lora_name": "bard"})
    assert response.text == "Success: LoRA adapter 'bard' removed successfully."
    assert call("/v1/completions", {"model": "bard", "prompt": "a"}).status_code == 404
    assert [adapter.name for adapter in adapters.adapters] == ["poet"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"lora_name": "poet", "lora_path": "/x"}, 400, "loaded already"),
        ({"lora_name": "tiny", "lora_path": "/x"}, 400, "the model's own name"),
        ({"lora_name": "bard", "lora_path": "broken"}, 400, "no adapter_config.json"),
        ({"lora_name": "bard"}, 400, "'lora_path' is missing"),
        ({"lora_name": "bard", "lora_path": 3}, 400, "lora_path"),
        ({"lora_name": "bard", "lora_path": "/x", "lora": 1}, 400, "unknown field 'lora'"),
    ],
)
def test_a_load_that_cannot_be_is_refused(
    body: dict, status: int, message: str, call: Post, adapters: FakeAdapters
) -> None:
    response = call("/v1/load_lora_adapter", body)
    assert response.status_code == status
    assert message in response.json()["error"]["message"]
    assert [adapter.name for adapter in adapters.adapters] == ["poet"]


def test_load_inplace_replaces_a_name(call: Post, adapters: FakeAdapters) -> None:
    body = {"lora_name": "poet", "lora_path": "/new", "load_inplace": True}
    assert call("/v1/load_lora_adapter", body).status_code == 200
    assert adapters.adapters == [FakeAdapter("poet", "/new")]


def test_unloading_what_is_not_loaded_is_not_found(call: Post) -> None:
    response = call("/v1/unload_lora_adapter", {"lora_name": "poets", "lora_int_id": 3})
    assert response.status_code == 404
    assert "did you mean 'poet'?" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"])
def test_updates_are_off_unless_the_server_says_so(
    path: str, build_app: BuildApp, adapters: FakeAdapters
) -> None:
    body = {"lora_name": "poet"} | ({"lora_path": "/x"} if "unload" not in path else {})
    response = Post(build_app(adapters=adapters))(path, body)
    assert response.status_code == 400
    assert "--allow-adapter-updates" in response.json()["error"]["message"]
    response = Post(build_app(ALLOWED))(path, body)
    assert response.status_code == 400
    assert "takes no adapters" in response.json()["error"]["message"]
    keyed = ServerConfig(allow_adapter_updates=True, api_key="secret")
    assert Post(build_app(keyed, adapters=adapters))(path, body).status_code == 401
    assert [adapter.name for adapter in adapters.adapters] == ["poet"]
