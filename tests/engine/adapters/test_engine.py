"""Loading while requests run, who else computes with the module, and what is refused."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.engine.adapters.support import ROOM, adapted, adapter
from tests.engine.features.support import (
    GREEDY,
    assert_same,
    completions,
    config,
    core_of,
    requests,
    step,
    tiny,
)
from tests.engine.support import make_llm, make_prompts
from weft.adapt import lora
from weft.adapt.peft import save_peft
from weft.core.errors import ConfigError, RequestError, UnsupportedError
from weft.engine.async_engine import AsyncEngine
from weft.engine.core import EngineCore
from weft.nn.context import StepContext

TOKENS = torch.arange(5, 17)


def engine(**settings) -> EngineCore:
    core = core_of(config(adapters=ROOM, **settings))
    core.adapters.load("a", adapter(1))
    return core


def hidden() -> torch.Tensor:
    with torch.inference_mode():
        return tiny()(TOKENS, StepContext.packed([len(TOKENS)]))


def test_a_folder_of_peft_is_loaded_by_name(tmp_path: Path) -> None:
    save_peft(adapter(1), tmp_path / "a", tiny())
    llm = make_llm(decoder=tiny(), adapters=ROOM)
    info = llm.load_adapter("a", tmp_path / "a")
    assert (info.name, info.source, info.rank) == ("a", str(tmp_path / "a"), 4)
    got = llm.generate(make_prompts(), GREEDY, adapter="a")
    expected = make_llm(decoder=adapted(1)).generate(make_prompts(), GREEDY)
    assert_same(got, expected, abs=2e-4)
    plain = make_llm(decoder=tiny()).generate(make_prompts(), GREEDY)
    assert_same(llm.generate(make_prompts(), GREEDY), plain)
    names = ["a", None] * 3
    both = llm.generate(make_prompts(), GREEDY, adapter=names, num_samples=1)
    wanted = [expected[i] if name else plain[i] for i, name in enumerate(names)]
    assert_same(both, wanted, abs=2e-4)


def test_requests_that_were_accepted_finish_after_their_adapter_is_unloaded() -> None:
    core = engine()
    request = replace(requests()[0], adapter="a")
    (expected,) = completions(core, [request])
    stream = core.submit(request)
    step(core)
    core.adapters.unload("a")
    assert core.adapters.list() == []
    with pytest.raises(RequestError, match="no adapter 'a'"):
        core.submit(replace(request, id="late"))
    core.adapters.load("a", adapter(2))
    late = core.submit(replace(request, id="late"))
    while core.has_work:
        step(core)
    assert_same([stream.completion()], [expected])
    assert late.completion().tokens != expected.tokens
    assert len(core.runner.adapters.store.keys) == 1


@pytest.mark.parametrize("overlap_depth", [0, 1])
def test_an_abort_before_the_first_step_lets_go_of_the_adapter(overlap_depth: int) -> None:
    core = engine(overlap_depth=overlap_depth)
    wanted = [replace(request, adapter="a") for request in requests()]
    for request in wanted:
        core.submit(request)
    step(core)
    for request in wanted:
        core.abort(request.id)
    core.adapters.unload("a")
    while core.has_work:
        step(core)
    assert core.runner.adapters.store.keys == frozenset()
    assert core.runner.adapters.slots.resident == frozenset()


def test_a_trainer_and_another_engine_get_no_updates() -> None:
    before = hidden()
    core, other = engine(), core_of(config())
    core.submit(replace(requests()[0], adapter="a"))
    seen = []

    def elsewhere(_: nn.Module, __: object) -> None:
        if not seen:
            seen.append(None)  # the module is called below, within the engine's own step
            thread = threading.Thread(target=lambda: seen.append(hidden()))
            thread.start()
            thread.join()

    handle = tiny().norm.register_forward_pre_hook(elsewhere)
    try:
        step(core)
    finally:
        handle.remove()
    assert torch.equal(seen[1], before)
    assert torch.equal(hidden(), before)
    assert_same(completions(other, requests()), completions(config(), requests()))


def test_an_engine_that_is_gone_leaves_nothing_that_acts() -> None:
    before = hidden()
    core = engine()
    layer = tiny().get_submodule("layers.0.mixer.qkv")
    copied = copy.deepcopy(layer)
    pickle.dumps(layer)
    assert layer._forward_hooks
    del core
    gc.collect()
    assert torch.equal(hidden(), before)
    x_TI = torch.randn(3, layer.in_features)
    assert torch.equal(copied(x_TI), layer(x_TI))
    core = engine()
    num_hooks = len(layer._forward_hooks)
    core.close()
    assert len(layer._forward_hooks) == num_hooks - 1
    with pytest.raises(RequestError, match="no adapter"):
        core.submit(replace(requests()[0], adapter="a"))


def test_layers_that_steps_do_not_call_are_refused() -> None:
    core = core_of(config(adapters=ROOM), tiny("latent"))
    core.adapters.load("out", adapter(1, "latent", targets=("*.mixer.out",)))
    with pytest.raises(UnsupportedError, match=r"mixer.kv_up.*\n.*merge the adapter"):
        core.adapters.load("up", adapter(1, "latent", targets=("*.mixer.kv_up",)))
    assert [info.name for info in core.adapters.list()] == ["out"]


def test_an_engine_without_room_says_how_to_get_it() -> None:
    llm = make_llm()
    assert list(llm.adapters) == []
    with pytest.raises(UnsupportedError, match="AdapterConfig"):
        llm.load_adapter("a", adapter(1))
    with pytest.raises(RequestError, match="this engine takes none"):
        llm.generate(make_prompts(), GREEDY, adapter="a")
    with pytest.raises(ConfigError, match="2 adapters for 6 prompts"):
        llm.generate(make_prompts(), GREEDY, adapter=["a", "b"])


def test_unknown_names_are_refused_before_anything_runs() -> None:
    llm = make_llm(decoder=tiny(), adapters=ROOM)
    llm.load_adapter("poet", adapter(1))
    with pytest.raises(RequestError, match="did you mean 'poet'"):
        llm.generate(make_prompts(), GREEDY, adapter=["poet", "poets"] * 3)
    assert llm.core.num_unfinished == 0
    llm.unload_adapter("poet")
    with pytest.raises(ConfigError, match="no adapter 'poet'"):
        llm.unload_adapter("poet")


def test_pairs_of_a_trainer_are_loaded_as_they_are_now() -> None:
    llm = make_llm(decoder=tiny(), adapters=ROOM)
    trained = adapted(1)
    first = llm.load_adapter("policy", lora.adapter_of(trained))
    old = llm.generate(make_prompts(), GREEDY, adapter="policy")
    second = llm.load_adapter("policy", adapter(2), replace=True)
    assert first.key != second.key
    got = llm.generate(make_prompts(), GREEDY, adapter="policy")
    assert_same(got, make_llm(decoder=adapted(2)).generate(make_prompts(), GREEDY), abs=2e-4)
    assert [it.tokens for it in got] != [it.tokens for it in old]


async def _async(folder: Path) -> list[list[int | None]]:
    served = AsyncEngine(tiny(), None, config(adapters=ROOM))
    try:
        info = await served.load_adapter("a", folder)
        assert info.source == str(folder)
        tokens: list[list[int | None]] = []
        for name in ("a", ""):
            request = replace(requests()[0], id=f"to-{name}", adapter=name)
            tokens.append([delta.token async for delta in served.generate(request)])
        await served.unload_adapter("a")
        assert list(served.adapters) == []
        return tokens
    finally:
        await served.close()


def test_an_async_engine_loads_while_it_serves(tmp_path: Path) -> None:
    import asyncio

    save_peft(adapter(1), tmp_path / "a", tiny())
    adapted_tokens, plain_tokens = asyncio.run(_async(tmp_path / "a"))
    assert adapted_tokens != plain_tokens
