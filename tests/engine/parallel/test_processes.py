"""Engines on real processes over gloo: equal tokens, and nothing hangs or stays behind."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import pytest
import torch

from tests.engine.support import GREEDY, VOCAB_SIZE, assert_nothing_left, make_prompts, tokenizer
from weft.checkpoint.hf import save_model
from weft.core.errors import CheckpointError, ConfigError, UnsupportedError
from weft.engine.async_engine import AsyncEngine
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.engine.parallel.config import ParallelConfig
from weft.models.decoder import Decoder
from weft.serve.limits import ServerConfig
from weft.serve.local import create_engine_app
from weft.spec import (
    ExpertShape,
    FinishReason,
    MLASpec,
    MLPSpec,
    ModelShape,
    ModelSpec,
    MoESpec,
    Request,
    RouterSpec,
    SamplingParams,
)

pytestmark = pytest.mark.dist

SHAPE = ModelShape(dim=32, num_layers=2, num_heads=4, num_kv_heads=2, context_length=128)
SEEDED = SamplingParams(temperature=0.8, top_p=0.9, max_tokens=12, seed=5, ignore_eos=True)
FAMILIES = ("llama", "qwen3_moe", "deepseek_v3")


def spec_of(family: str) -> ModelSpec:
    experts = ExpertShape(num_experts=4, expert_dim=32) if "moe" in family else ExpertShape()
    named = "llama" if family == "deepseek_v3" else family
    shape = dataclasses.replace(SHAPE, family=named, experts=experts)
    built = shape.build(VOCAB_SIZE, eos_ids=tokenizer().eos_ids)
    if family != "deepseek_v3":
        return built
    router = RouterSpec(score="sigmoid", correction_bias=True, group_score="top2_sum")
    layer = dataclasses.replace(
        built.layers[0],
        mixer=MLASpec(4, 16, 8, 4, 8, query_latent_dim=12, latent_norm_eps=1e-6),
        ffn=MoESpec(4, 2, MLPSpec(32), router, shared=MLPSpec(32)),
    )
    dense = dataclasses.replace(layer, ffn=MLPSpec(64))
    return dataclasses.replace(built, family=family, layers=(dense, layer), tie_embeddings=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    for family in FAMILIES:
        model = Decoder(spec_of(family), seed=1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(2.0)
        save_model(model, root / family, tokenizer=tokenizer())
    return {family: root / family for family in FAMILIES}


def config(tensor: int = 1, **settings) -> EngineConfig:
    parallel = ParallelConfig(tensor=tensor, timeout_s=20.0)
    sizes = {"num_blocks": 64, "block_size": 4, "max_num_sequences": 4} | settings
    return EngineConfig(parallel=parallel, **sizes)


def assert_equal(got, expected) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.tokens == theirs.tokens
        assert ours.text == theirs.text
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)


def children() -> set[int]:
    """Return the processes that were started by this one and have not been waited for."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in found.stdout.splitlines() if "weft.engine.parallel" in line]
    return {int(line.split()[0]) for line in lines}


@pytest.mark.parametrize(
    ("family", "parallel"),
    [
        ("llama", ParallelConfig(tensor=2)),
        ("qwen3_moe", ParallelConfig(tensor=2, expert_split="experts")),
        ("deepseek_v3", ParallelConfig(tensor=2)),
        ("deepseek_v3", ParallelConfig(pipeline=2)),
    ],
)
def test_tokens_are_those_of_one_process_chunked_cached_and_preempted(folders, family, parallel):
    """Every other family and cut is compared on ranks that are threads."""
    prompts = make_prompts() + [[*range(3, 30), last] for last in (40, 41)]
    params = [GREEDY, SEEDED] * 4
    expected = LLM.load(folders[family], config=config()).generate(prompts, params)
    # Six of sixteen blocks hold one sequence: some have to give way, and start again in chunks.
    tight = config(num_blocks=16, max_tokens_per_step=7)
    llm = LLM.load(folders[family], config=dataclasses.replace(tight, parallel=parallel))
    try:
        assert_equal(llm.generate(prompts, params), expected)
        assert_equal(llm.generate(prompts[-1:], SEEDED), expected[-1:])
        counters = llm.stats().scheduler.counters
        assert counters.num_preemptions > 0
        assert counters.num_prefix_hit_tokens > 0
        assert_nothing_left(llm.core)
        assert len(children()) == 1
    finally:
        llm.close()
    assert not children()


def test_a_killed_rank_ends_its_requests_and_the_server_says_unhealthy(folders):
    long = SamplingParams(temperature=0.0, max_tokens=100, ignore_eos=True)

    async def main() -> None:
        engine = AsyncEngine.load(folders["llama"], config=config(2, overlap_depth=1))
        try:
            assert engine.healthy
            (rank,) = children()
            stream = await engine.submit(Request("a", (1, 2, 3), long))
            deltas = []
            async with stream:
                async for delta in stream:
                    deltas.append(delta)
                    if len(deltas) == 3:
                        os.kill(rank, signal.SIGKILL)
            assert 3 <= len(deltas) < 100
            assert deltas[-1].finish_reason is FinishReason.ERROR
            assert "rank 1 died (exit code -9)" in deltas[-1].error
            assert not engine.healthy
            assert "rank 1 died" in str(engine.failure)
            app = create_engine_app(engine, tokenizer(), "weft", ServerConfig())
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1"
            ) as client:
                assert (await client.get("/health")).status_code == 503
            again = [delta async for delta in engine.generate(Request("b", (1, 2), long))]
            assert again[-1].finish_reason is FinishReason.ERROR
        finally:
            start_s = time.monotonic()
            await engine.close()
            assert time.monotonic() - start_s < 10
        assert not children()

    asyncio.run(main())


def test_a_model_that_does_not_divide_starts_nothing(folders):
    with pytest.raises(ConfigError, match="4 query heads do not divide among 3 ranks"):
        LLM.load(folders["llama"], tensor_parallel=3)
    assert not children()


def test_random_weights_are_refused_before_anything_is_started(folders):
    with pytest.raises(UnsupportedError, match="load_format is 'dummy': the 2 ranks"):
        LLM.load(folders["llama"], config=config(2), load_format="dummy")
    assert not children()


def test_broken_weights_are_reported_and_leave_no_process(folders, tmp_path):
    broken = tmp_path / "broken"
    save_model(Decoder(spec_of("qwen3")), broken, tokenizer=tokenizer())
    (broken / "config.json").write_text((folders["llama"] / "config.json").read_text())
    with pytest.raises(CheckpointError, match="k_norm"):
        LLM.load(broken, config=config(2))
    assert not children()


def test_an_engine_that_is_dropped_takes_its_ranks_along(folders):
    llm = LLM.load(folders["llama"], config=config(2))
    assert len(children()) == 1
    del llm
    gc.collect()
    end_s = time.monotonic() + 10
    while children() and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not children()


SCRIPT = """
    import sys
    from weft.engine.config import EngineConfig
    from weft.engine.llm import LLM
    from weft.engine.parallel.config import ParallelConfig
    from weft.spec import SamplingParams

    parallel = ParallelConfig(tensor=2, launch=sys.argv[2], timeout_s=20.0)
    llm = LLM.load(sys.argv[1], config=EngineConfig(num_blocks=64, parallel=parallel))
    processes = llm.core.ranks._state.processes
    print("ready", *(process.pid for process in processes.values()), flush=True)
    for _ in range(int(sys.argv[3])):
        tokens = llm.generate([[1, 2, 3]], SamplingParams(temperature=0.0, max_tokens=8))[0].tokens
    print("tokens", *tokens, flush=True)
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("script") / "generate.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_rank_outlives_a_program_that_is_ended(folders, script, sent):
    """Ctrl-C goes to all processes of a terminal, a kill only to the one that is named."""
    arguments = [sys.executable, str(script), str(folders["llama"]), "local", "1000000"]
    program = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
        # A shell without job control starts its background jobs, such as this test, deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        ready = program.stdout.readline().split()
        assert ready[0] == "ready"
        rank = int(ready[1])
        if sent is signal.SIGINT:
            os.killpg(program.pid, sent)
        else:
            os.kill(program.pid, sent)
        _, errors = program.communicate(timeout=20)
        assert errors.count("KeyboardInterrupt") <= (sent is signal.SIGINT)
        end_s = time.monotonic() + 15
        while _is_alive(rank) and time.monotonic() < end_s:
            time.sleep(0.05)
        assert not _is_alive(rank)
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()


def test_torchrun_starts_the_ranks_and_only_the_first_returns(folders, script):
    found = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
         "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0",
         str(script), str(folders["llama"]), "torchrun", "1"],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    params = SamplingParams(temperature=0.0, max_tokens=8)
    expected = LLM.load(folders["llama"], config=config()).generate([[1, 2, 3]], params)[0].tokens
    assert found.stdout.count("ready") == 1
    assert f"tokens {' '.join(map(str, expected))}" in found.stdout


def test_torchrun_is_asked_for_where_it_is_missing(folders):
    parallel = ParallelConfig(tensor=2, launch="torchrun")
    with pytest.raises(ConfigError, match="torchrun"):
        LLM.load(folders["llama"], config=EngineConfig(parallel=parallel))


def _is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
