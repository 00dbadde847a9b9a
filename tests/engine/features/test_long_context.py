"""Sequences longer than what is kept of them, served."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.engine.features.support import (
    GREEDY,
    assert_same,
    completions,
    config,
    core_of,
    requests,
    tiny,
)
from weft.core.errors import UnsupportedError
from weft.models import heads
from weft.nn.backends.packed import PackedBackend
from weft.nn.context import StepContext
from weft.nn.long_context.policy import HeavyHitter, SinkWindow
from weft.nn.long_context.reference import heavy_hitter_attention, sink_window_attention
from weft.ops.native.bindings import load_library
from weft.spec import SamplingParams

SINKS = SinkWindow(4, 12)
NEAR = SinkWindow(4, 12, positions="cache")
HITTERS = HeavyHitter(16, 8)
POLICIES = pytest.mark.parametrize("policy", [SINKS, NEAR, HITTERS], ids=["sinks", "near", "h2o"])
LONG = replace(GREEDY, max_tokens=70)
DRAWN = SamplingParams(temperature=0.9, max_tokens=50, seed=7)


def settings(policy, **changes):
    return config(long_context=policy, enable_prefix_cache=False, **changes)


class Masked(PackedBackend):
    """Whole documents, masked as a policy says."""

    def attend(self, layer, q_TNH, k_TKH, v_TKV, rule, kv_source):
        if isinstance(self.policy, SinkWindow):
            return sink_window_attention(q_TNH, k_TKH, v_TKV, rule, self.policy)
        return heavy_hitter_attention(q_TNH, k_TKH, v_TKV, rule, self.policy)[0]


def greedy_with_masks(decoder, policy, prompt, num_tokens):
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(num_tokens):
            context = StepContext.packed([len(tokens)])
            context.backend = Masked((len(tokens),), frozenset())
            object.__setattr__(context.backend, "policy", policy)
            hidden_TD = decoder(torch.tensor(tokens), context)
            tokens.append(int(heads.logits(decoder, hidden_TD[-1:]).argmax()))
    return tuple(tokens[len(prompt) :])


@pytest.mark.parametrize("policy", [SINKS, HITTERS], ids=["sinks", "h2o"])
def test_served_tokens_are_those_of_the_masked_model(policy) -> None:
    wanted = requests(replace(GREEDY, max_tokens=40))[:3]
    served = completions(settings(policy, max_tokens_per_step=7), wanted)
    for request, completion in zip(wanted, served, strict=True):
        assert completion.tokens == greedy_with_masks(tiny(), policy, request.tokens, 40)
    assert served[0].tokens != completions(config(), wanted)[0].tokens, "something was forgotten"


@POLICIES
@pytest.mark.pair("windows", "chunking")
@pytest.mark.pair("windows", "batching")
def test_chunks_and_batches_change_nothing(policy) -> None:
    wanted = requests([LONG, DRAWN] * 3)[:4]
    expected = [completions(settings(policy), [one])[0] for one in wanted]
    assert_same(completions(settings(policy), wanted), expected, abs=1e-3)
    for budget in (3, 16):
        cut = settings(policy, max_tokens_per_step=budget)
        assert_same(completions(cut, wanted), expected, abs=1e-3)


@pytest.mark.skipif(load_library() is None, reason="no C compiler")
@pytest.mark.pair("windows", "deterministic")
def test_deterministic_sinks_have_the_same_bits_however_served() -> None:
    wanted = requests([LONG, DRAWN] * 3)
    fixed = settings(SinkWindow(4, 30), deterministic=True)
    expected = completions(fixed, wanted)
    alone = [completions(fixed, [one])[0] for one in wanted[:2]]
    assert_same(alone, expected[:2], abs=0)
    assert_same(completions(replace(fixed, max_tokens_per_step=16), wanted), expected, abs=0)


@POLICIES
@pytest.mark.pair("windows", "preemption")
def test_preempted_sequences_get_the_same(policy) -> None:
    wanted = requests(LONG)
    expected = completions(settings(policy), wanted)
    tight = settings(policy, num_blocks=30, max_tokens_per_step=8)
    core = core_of(tight)
    assert_same(completions(core, wanted), expected, abs=1e-4)
    assert core.stats().scheduler.counters.num_preemptions > 0


@pytest.mark.pair("quantized_kv", "windows")
def test_rings_hold_quantized_blocks_too() -> None:
    wanted = requests(LONG)
    for policy in (SINKS, NEAR):
        expected = completions(settings(policy, kv_dtype="int8"), wanted)
        cut = settings(policy, kv_dtype="int8", max_tokens_per_step=7)
        assert_same(completions(cut, wanted), expected, abs=1e-3)


def test_context_exceeds_the_pool_and_the_models_length() -> None:
    pool = settings(NEAR, num_blocks=16, max_context=1000, max_tokens_per_step=8)
    core = core_of(pool)
    assert core.memory.kv_tokens == 64 < tiny().spec.context_length == 128
    assert core.context_limit == 1000
    (done,) = completions(core, requests(replace(GREEDY, max_tokens=400))[:1])
    assert len(done.tokens) == 400
    assert done.error is None


def test_a_sequence_holds_no_more_blocks_at_any_length() -> None:
    core = core_of(settings(SINKS, max_tokens_per_step=8))
    core.submit(requests(replace(GREEDY, max_tokens=100))[0])
    used = []
    while core.has_work:
        core.step()
        used.append(core.stats().scheduler.num_used_blocks)
    assert max(used) == 1 + -(-(12 - 1 + 8) // 4)  # sinks, then the ring


def test_the_pool_is_sized_by_what_is_kept() -> None:
    sized = settings(SINKS, num_blocks=None, max_num_sequences=3, max_tokens_per_step=8)
    assert core_of(sized).memory.num_blocks == 3 * (1 + 5)
    core = core_of(settings(HITTERS, num_blocks=None, max_num_sequences=3))
    assert core.memory.kv_bytes == 0
    per_sequence = 2 * 2 * 16 * (2 * 16 * 4 + 2 * 4)  # layers, heads, places, numbers
    assert core.memory.state_bytes == per_sequence
    assert core.runner.cache.size_bytes == 4 * per_sequence


@POLICIES
def test_what_does_not_go_together_is_refused(policy) -> None:
    with pytest.raises(UnsupportedError, match=r"cache and (sink_window|heavy_hitter)"):
        core_of(config(long_context=policy))
    with pytest.raises(UnsupportedError, match="MLASpec keeps no keys"):
        core_of(settings(policy), tiny("latent"))


@pytest.mark.parametrize("change", [{"kv_dtype": "int8"}, {"deterministic": True}])
def test_heavy_hitters_are_neither_quantized_nor_deterministic(change) -> None:
    with pytest.raises(UnsupportedError, match="heavy_hitter"):
        core_of(settings(HITTERS, **change))
