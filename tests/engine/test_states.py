"""Models with recurrent states through the engine: the same tokens however they are served."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.support import GREEDY, assert_nothing_left, make_llm, make_prompts, tokens_of
from tests.nn.recurrent.models import model_spec
from weft.core.errors import ResourceError
from weft.engine.config import EngineConfig
from weft.engine.memory import plan_memory
from weft.engine.states import StateSlots
from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.nn.kv_cache import KVCache, bytes_per_sequence
from weft.sched.plan import StateTransfers
from weft.sched.snapshots import SnapshotConfig
from weft.spec import GatedDeltaNetSpec, LayerSpec, MLPSpec
from weft.spec.request import Request

# One of each kind of state; the others differ in their arithmetic only.
MODELS = ["gated-delta", "kimi-delta", "mamba2", "rwkv", "gated-linear", "short-conv"]


@functools.cache
def model(name: str, *, hybrid: bool = True) -> Decoder:
    spec = dataclasses.replace(model_spec(name, hybrid=hybrid), vocab_size=300, context_length=128)
    decoder = Decoder(spec, seed=1).eval()
    for parameter in decoder.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(3.0)
    return decoder


@functools.cache
def recomputed(name: str, prompt: tuple[int, ...], *, hybrid: bool = True) -> tuple[int, ...]:
    """Return greedy tokens by running the whole sequence through the training path each time."""
    decoder, tokens = model(name, hybrid=hybrid), list(prompt)
    with torch.inference_mode():
        for _ in range(GREEDY.max_tokens or 0):
            hidden_TD = decoder(torch.tensor(tokens), StepContext.packed([len(tokens)]))
            tokens.append(int(heads.logits(decoder, hidden_TD[-1:]).argmax()))
    return tuple(tokens[len(prompt) :])


def expected(name: str, prompts: list[list[int]], *, hybrid: bool = True) -> list[tuple[int, ...]]:
    return [recomputed(name, tuple(prompt), hybrid=hybrid) for prompt in prompts]


@pytest.mark.parametrize(
    ("name", "hybrid"), [*((name, True) for name in MODELS), ("mamba2", False), ("rwkv", False)]
)
def test_a_batch_gives_what_recomputing_each_sequence_gives(name, hybrid):
    llm = make_llm(decoder=model(name, hybrid=hybrid))
    got = llm.generate(make_prompts(4), GREEDY)
    assert tokens_of(got) == expected(name, make_prompts(4), hybrid=hybrid)
    assert_nothing_left(llm.core)
    assert len(llm.core.runner.states) == 0


@pytest.mark.parametrize("max_tokens_per_step", [1, 5])
@pytest.mark.parametrize("name", ["gated-delta", "mamba2", "rwkv"])
def test_chunk_size_changes_nothing(name, max_tokens_per_step):
    llm = make_llm(decoder=model(name), max_tokens_per_step=max_tokens_per_step)
    assert tokens_of(llm.generate(make_prompts(4), GREEDY)) == expected(name, make_prompts(4))


@pytest.mark.parametrize("name", MODELS)
def test_preempted_sequences_start_again_from_an_empty_state(name):
    prompts = [[index + 1] * 9 for index in range(3)]
    llm = make_llm(decoder=model(name), num_blocks=9, block_size=4, max_num_sequences=3)
    got = llm.generate(prompts, GREEDY)
    assert llm.stats().scheduler.counters.num_preemptions > 0
    assert tokens_of(got) == expected(name, prompts)
    assert_nothing_left(llm.core)
    assert len(llm.core.runner.states) == 0


@pytest.mark.parametrize("name", ["kimi-delta", "rwkv", "short-conv"])
def test_padding_of_deterministic_mode_leaves_states_alone(name):
    llm = make_llm(decoder=model(name), deterministic=True)
    assert tokens_of(llm.generate(make_prompts(2), GREEDY)) == expected(name, make_prompts(2))


def test_an_aborted_request_gives_its_slot_back():
    core = make_llm(decoder=model("rwkv"), max_num_sequences=2).core
    for index in range(3):
        core.submit(Request(f"r{index}", (5, 6, 7), GREEDY))
    core.step()
    assert len(core.runner.states) == 2
    core.abort("r0")
    while core.has_work:
        core.step()
    assert len(core.runner.states) == 0


def test_failed_requests_give_their_slots_back():
    llm = make_llm(decoder=model("mamba2"), max_num_sequences=2)
    with pytest.raises(RuntimeError, match="broken"):
        _fail_once(llm)
    assert tokens_of(llm.generate(make_prompts(4), GREEDY)) == expected("mamba2", make_prompts(4))
    assert len(llm.core.runner.states) == 0


def _fail_once(llm) -> None:
    def broken(module, args):
        raise RuntimeError("broken")

    handle = llm.model.register_forward_pre_hook(broken)
    try:
        llm.generate([[1, 2, 3], [4, 5, 6]], GREEDY)
    finally:
        handle.remove()


def test_without_snapshots_the_prefix_cache_is_off_and_the_plan_says_so():
    llm = make_llm(decoder=model("gated-delta"), snapshots=SnapshotConfig(num_slots=0))
    prompt = make_prompts()[5] * 2
    first, second = (llm.generate([prompt], GREEDY)[0] for _ in range(2))
    assert second.num_cached_tokens == 0
    assert second.tokens == first.tokens
    assert "no prefix cache" in llm.core.memory.text


@pytest.mark.parametrize("hybrid", [True, False], ids=["hybrid", "pure"])
def test_plan_counts_the_bytes_that_are_really_taken(hybrid):
    decoder = model("kimi-delta", hybrid=hybrid)
    snapshots = SnapshotConfig(num_slots=3)
    plan = plan_memory(
        EngineConfig(num_blocks=6, max_num_sequences=5, snapshots=snapshots), decoder
    )
    cache = KVCache(decoder.spec, num_blocks=6, block_size=16, num_sequences=plan.num_state_slots)
    assert plan.num_state_slots == 9
    assert plan.kv_bytes + plan.num_state_slots * plan.state_bytes == cache.size_bytes
    assert f"= (5 sequences + 3 snapshots + 1) x {plan.state_bytes} bytes" in plan.text


def test_states_leave_half_of_the_memory_to_keys_and_values():
    decoder = model("mamba2")
    state_bytes = bytes_per_sequence(decoder.spec, torch.float32)
    config = EngineConfig(kv_memory_bytes=20 * state_bytes, max_num_sequences=64)
    plan = plan_memory(config, decoder)
    assert plan.num_sequences == 9
    assert plan.num_blocks == (20 - 10) * state_bytes // plan.block_bytes
    scheduler = config.scheduler(decoder.spec, plan)
    assert scheduler.max_num_sequences == 9
    # No sequence gives way to a snapshot: what is left beside them is nothing here.
    assert (plan.num_snapshots, scheduler.enable_prefix_cache) == (0, False)
    alone = plan_memory(config, model("mamba2", hybrid=False))
    assert alone.num_sequences == 19


def test_snapshots_are_as_many_as_sequences_or_what_fits_beside_them():
    decoder = model("mamba2")
    state_bytes = bytes_per_sequence(decoder.spec, torch.float32)
    sizes = {"kv_memory_bytes": 40 * state_bytes, "block_size": 5}
    plan = plan_memory(EngineConfig(**sizes, max_num_sequences=4), decoder)
    assert plan.num_snapshots == 4
    config = EngineConfig(**sizes, max_num_sequences=12)
    plan = plan_memory(config, decoder)
    assert (plan.num_sequences, plan.num_snapshots) == (12, 7)
    assert config.scheduler(decoder.spec, plan).snapshots == SnapshotConfig(
        interval_tokens=130, num_slots=7
    )


def test_memory_for_less_than_one_state_is_refused():
    config = EngineConfig(kv_memory_bytes=5000)
    with pytest.raises(ResourceError, match="states of one sequence take"):
        plan_memory(config, model("gated-delta"))


def test_a_snapshot_costs_per_token_what_row_pm07_says():
    """A layer of Qwen3-Next: 8,576 bytes with states in bfloat16; here sums are in float32."""
    mixer = GatedDeltaNetSpec(num_key_heads=16, num_value_heads=32, key_dim=128, value_dim=128)
    layer = LayerSpec(mixer, MLPSpec(48))
    spec = dataclasses.replace(model_spec("gated-delta"), layers=(layer,))
    sums_bytes = 4 * 32 * 128 * 128
    snapshot_bytes = bytes_per_sequence(spec, torch.bfloat16)
    assert (snapshot_bytes - sums_bytes // 2) / SnapshotConfig().interval_tokens == 8576
    assert snapshot_bytes / SnapshotConfig().interval_tokens == 16_768


def test_states_go_to_snapshots_and_come_back():
    cache = KVCache(model("mamba2").spec, num_blocks=1, block_size=4, num_sequences=6)
    slots = StateSlots(3)
    kept = [layer[name] for layer in cache.states for name in layer]
    first, second = slots.take([10, 11])
    for state in kept:
        state[first], state[second] = 1.0, 2.0
    # Two snapshots lie behind the scratch slot 3; sequence 12 was not computed.
    slots.save(cache, StateTransfers(saves=((10, 1), (12, 0))), [10, 11])
    slots.restore(cache, StateTransfers(restores=((1, 11), (0, 99))))
    for state in kept:
        assert state[5].eq(1.0).all()
        assert state[second].eq(1.0).all()
        assert state[[2, 3, 4]].eq(0.0).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["step", "release"]), st.sets(st.integers(0, 9)))))
def test_slots_are_never_shared(operations):
    slots, live = StateSlots(10), {}
    for operation, ids in operations:
        if operation == "release":
            slots.release(ids)
            live = {id: slot for id, slot in live.items() if id not in ids}
            continue
        for id, slot in zip(ids, slots.take(ids), strict=True):
            assert live.get(id, slot) == slot, "a running sequence keeps its slot"
            live[id] = slot
        assert len(set(live.values())) == len(live) == len(slots)
        assert set(live.values()) <= set(range(10))
        assert slots.scratch not in live.values()
