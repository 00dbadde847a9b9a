"""What a rank is told, what is refused before any process starts, and how sizes are agreed on."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.engine.features.support import config, tiny
from tests.engine.parallel.support import threaded_core
from tests.models.ranks import on_ranks
from weft.core.errors import ConfigError, UnsupportedError
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.engine.parallel import start
from weft.engine.parallel.channel import Address
from weft.engine.parallel.config import ParallelConfig
from weft.engine.parallel.lockstep import Lockstep
from weft.engine.parallel.start import Job, agree_on_memory, with_tensor_parallel
from weft.models.sharded import ShardedDecoder, load_whole
from weft.models.sharding import plan_sharding

PARALLEL = ParallelConfig(tensor=2, expert_split="experts", timeout_s=3.0)


@pytest.mark.parametrize(
    "settings", [{}, {"seed": 4, "kv_tokens": 64, "deterministic": True, "kv_dtype": "int8"}]
)
def test_a_job_arrives_as_it_was_sent(settings):
    engine = EngineConfig(parallel=PARALLEL, **settings)
    job = Job("/models/m", 1, engine, "bfloat16", "cpu", 2, "/tmp/store", Address(4000, "s"))
    assert Job.from_json(job.to_json()) == job
    assert job.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tensor": 0}, "parallel.tensor is 0"),
        ({"timeout_s": 0.0}, "parallel.timeout_s"),
        ({"start_timeout_s": -1.0}, "parallel.start_timeout_s"),
    ],
)
def test_settings_out_of_range_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        ParallelConfig(**fields)


def test_the_short_form_sets_one_field():
    assert with_tensor_parallel(None, None) == EngineConfig()
    engine = EngineConfig(seed=3, parallel=PARALLEL)
    assert with_tensor_parallel(engine, None) is engine
    changed = with_tensor_parallel(engine, 4)
    assert changed.seed == 3
    assert changed.parallel == dataclasses.replace(PARALLEL, tensor=4)


def test_a_module_cannot_be_spread():
    with pytest.raises(UnsupportedError, match="cannot be spread over 2 ranks"):
        LLM(tiny(), None, config(parallel=ParallelConfig(tensor=2)))


def test_ranks_agree_on_the_smallest_cache():
    decoder, plan = tiny(), plan_sharding(tiny().spec, 2)

    def work(thread_group):
        group = Lockstep(thread_group)
        model = ShardedDecoder(plan, group).to_empty(device="cpu")
        load_whole(model, decoder.state_dict())
        sized = EngineConfig(num_blocks=10 + thread_group.rank, parallel=PARALLEL)
        free = EngineConfig(parallel=PARALLEL)
        return agree_on_memory(sized, model, group), agree_on_memory(free, model, group)

    (first, free), (second, other) = on_ranks(2, work)
    assert first.num_blocks == second.num_blocks == 10
    assert free == other
    assert free.max_num_sequences == EngineConfig().max_num_sequences


def test_the_memory_of_the_machine_is_shared_out(monkeypatch):
    plan = plan_sharding(tiny().spec, 2)
    monkeypatch.setattr(start, "total_memory_bytes", lambda: 2**20)

    def work(thread_group):
        group = Lockstep(thread_group)
        model = ShardedDecoder(plan, group).to_empty(device="cpu")
        return agree_on_memory(EngineConfig(parallel=PARALLEL), model, group).num_blocks

    num_bytes = 16 * plan.local.cache_values_per_token * 4
    assert on_ranks(2, work) == [2**20 // 4 // 2 // num_bytes] * 2


@pytest.mark.parametrize("change", ["update", "sleep", "reload"])
def test_what_would_reach_one_rank_only_is_refused(change):
    with threaded_core(tiny(), config()) as core:
        calls = {
            "update": lambda: core.weights.update([]),
            "reload": lambda: core.weights.reload(),
            "sleep": lambda: core.sleeper.sleep(),
        }
        with pytest.raises(UnsupportedError, match="only one of the ranks"):
            calls[change]()


@pytest.mark.parametrize(
    "settings", [{"cuda_graphs": True}, {"kv_dtype": "auto", "overlap_depth": 1}]
)
def test_pairs_that_do_not_go_together_are_refused(settings):
    engine = config(parallel=ParallelConfig(tensor=2), **settings)
    words = "cuda_graphs and tensor_parallel" if "cuda_graphs" in settings else "cannot be spread"
    with pytest.raises(UnsupportedError, match=words):
        LLM(tiny(), None, engine)
