"""Every proposer gives the tokens of serving without it, and is often right about a learnt text."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

from tests.engine.speculation.support import (
    block,
    eagle,
    medusa,
    one_module,
    prompts,
    serve,
    trained,
)
from tests.engine.support import model as tiny_model
from tests.engine.support import tokenizer
from weft.checkpoint.hf import save_model
from weft.checkpoint.speculator import save_speculator
from weft.core.config import from_mapping
from weft.core.errors import ConfigError, UnsupportedError
from weft.engine.async_engine import AsyncEngine
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.llm import LLM
from weft.engine.speculation.config import SpeculationConfig, TreeShape
from weft.models.decoder import Decoder
from weft.models.eagle import EagleHead
from weft.models.medusa import MedusaHeads
from weft.sched.loop import VirtualClock
from weft.spec import (
    LayerSpec,
    MLASpec,
    MLPSpec,
    ModelShape,
    ModelSpec,
    RotarySpec,
    SamplingParams,
)
from weft.spec.request import Request

GREEDY = SamplingParams(temperature=0.0, max_tokens=40)
SAMPLED = SamplingParams(temperature=1.0, seed=5, max_tokens=40)
EVERYTHING = [
    GREEDY,
    SAMPLED,
    replace(SAMPLED, top_k=20, top_p=0.9, min_p=0.01),
    replace(SAMPLED, typical_p=0.9, temperature=1.5),
    replace(SAMPLED, frequency_penalty=0.5, presence_penalty=0.2, repetition_penalty=1.2),
    replace(SAMPLED, logit_bias=((7, 2.0),), bad_words=((5, 6), (9,)), logprobs=2),
    replace(SAMPLED, allowed_token_ids=tuple(range(2, 30)), prompt_logprobs=1),
    replace(GREEDY, stop_token_ids=(2,), min_tokens=11, repetition_penalty=1.1),
]
KINDS = {
    "ngram": (SpeculationConfig("ngram"), None, trained),
    "suffix": (SpeculationConfig("suffix"), None, trained),
    "suffix-tree": (SpeculationConfig("suffix", 8, tree=TreeShape(3)), None, trained),
    "draft": (SpeculationConfig("draft", 4), trained, trained),
    "draft-tree": (SpeculationConfig("draft", 8, tree=TreeShape(2, 4)), trained, trained),
    "mtp-one": (SpeculationConfig("mtp", 4), None, one_module),
    "mtp-chain": (SpeculationConfig("mtp", 4), None, trained),
    "eagle": (SpeculationConfig("eagle", 4), eagle, trained),
    "eagle-tree": (SpeculationConfig("eagle", 8, tree=TreeShape(3, 4)), eagle, trained),
    "block": (SpeculationConfig("block", 4), block, trained),
    "medusa": (SpeculationConfig("medusa", 3), medusa, trained),
    "medusa-tree": (SpeculationConfig("medusa", 10, tree=TreeShape(4)), medusa, trained),
}
# Share of greedy guesses that must hold on the text of six words.
LEAST_ACCEPTANCE = {
    "ngram": 0.5, "suffix": 0.4, "suffix-tree": 0.2, "draft": 1.0, "draft-tree": 0.45,
    "mtp-one": 0.2, "mtp-chain": 0.5, "eagle": 0.5, "eagle-tree": 0.2, "medusa": 0.15,
    "medusa-tree": 0.1, "block": 0.2,
}  # fmt: skip


def _requests(params: list[SamplingParams]) -> list[Request]:
    return [Request(str(i), p, params[i]) for i, p in enumerate(prompts(len(params)))]


@functools.cache
def _plain(model: Decoder, params: tuple[SamplingParams, ...]):
    return serve(_requests(list(params)), model=model)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_draws_give_equal_tokens_with_all_sampling_parameters(kind):
    config, drafter, target = KINDS[kind]
    got, core = serve(_requests(EVERYTHING), config, model=target(), drafter=drafter and drafter())
    for ours, plain in zip(got, _plain(target(), tuple(EVERYTHING)), strict=True):
        assert ours.tokens == plain.tokens
        assert ours.finish_reason == plain.finish_reason
        assert ours.logprobs == pytest.approx(plain.logprobs, abs=1e-3)
    stats = core.speculator.stats()
    assert stats.num_draft_tokens >= stats.num_accepted_tokens > 0
    assert sum(stats.num_accepted_by_position) == stats.num_accepted_tokens
    assert core.stats().speculation == stats


@pytest.mark.parametrize("kind", KINDS)
def test_rejection_leaves_greedy_tokens_as_they_are(kind):
    config, drafter, target = KINDS[kind]
    requests = _requests([GREEDY] * 4)
    plain = _plain(target(), tuple([GREEDY] * 4))
    config = replace(config, acceptance="rejection")
    got, core = serve(requests, config, model=target(), drafter=drafter and drafter())
    assert [ours.tokens for ours in got] == [theirs.tokens for theirs in plain]
    assert core.speculator.stats().acceptance_rate >= LEAST_ACCEPTANCE[kind]


@pytest.mark.parametrize("kind", ["draft", "mtp-one", "mtp-chain", "eagle"])
def test_rejection_accepts_sampled_guesses(kind):
    config, drafter, target = KINDS[kind]
    config = replace(config, acceptance="rejection")
    requests = _requests([SAMPLED] * 6)
    got, core = serve(requests, config, model=target(), drafter=drafter and drafter())
    assert all(len(ours.tokens) == 40 for ours in got)
    stats = core.speculator.stats()
    if kind == "draft":
        assert stats.acceptance_rate > 0.99
    assert stats.num_accepted_tokens > 0


def test_guesses_end_where_the_context_does():
    long = [Request("0", prompts(1, length=100)[0], SamplingParams(temperature=0.0))]
    for kind in ("draft", "eagle-tree", "mtp-chain", "ngram"):
        config, drafter, target = KINDS[kind]
        plain, _ = serve(long, model=target())
        got, _ = serve(long, config, model=target(), drafter=drafter and drafter())
        assert got[0].tokens == plain[0].tokens
        assert len(got[0].tokens) == 28


def test_wrong_networks_are_refused():
    def build(kind: str, drafter: torch.nn.Module | None, model: Decoder | None = None) -> None:
        config = EngineConfig(num_blocks=8, speculation=SpeculationConfig(kind))
        EngineCore(model or trained(), config=config, clock=VirtualClock(), drafter=drafter)

    other = Decoder(ModelShape(dim=16, num_layers=1, num_heads=2, num_kv_heads=2).build(50))
    with pytest.raises(UnsupportedError, match="has 50 tokens, the target 40"):
        build("draft", other)
    with pytest.raises(ConfigError, match="drafts with a EagleHead"):
        build("eagle", MedusaHeads(32, 2))
    with pytest.raises(ConfigError, match="no network"):
        build("medusa", None)
    with pytest.raises(UnsupportedError, match="16 wide, the model 32"):
        build("medusa", MedusaHeads(16, 2))
    with pytest.raises(UnsupportedError, match="no prediction modules"):
        build("mtp", None, other)
    with pytest.raises(ConfigError, match="guesses chains"):
        SpeculationConfig("ngram", tree=TreeShape(2))
    with pytest.raises(ConfigError, match="kind is"):
        SpeculationConfig("magic")
    with pytest.raises(ConfigError, match="max_draft"):
        SpeculationConfig(max_draft=0)


def test_a_random_head_changes_nothing_but_speed():
    head = EagleHead(trained().spec, ffn_dim=16, seed=9)
    got, _ = serve(_requests(EVERYTHING), SpeculationConfig("eagle", 3), drafter=head)
    assert [ours.tokens for ours in got] == [
        plain.tokens for plain in _plain(trained(), tuple(EVERYTHING))
    ]


@pytest.mark.parametrize("num_modules", [1, 2])
@pytest.mark.parametrize("load", [LLM.load, AsyncEngine.load])
def test_prediction_modules_are_loaded_with_the_model_that_has_them(tmp_path, num_modules, load):
    mixer = MLASpec(2, 16, 8, 4, 8, 12, RotarySpec(layout="interleaved"), latent_norm_eps=1e-6)
    layers = (LayerSpec(mixer, MLPSpec(48)),) * 2
    vocab_size = tokenizer().vocab_size
    spec = ModelSpec("deepseek_v3", vocab_size, 32, layers, num_mtp_layers=num_modules)
    target = Decoder(spec, seed=1).eval()
    save_model(target, tmp_path, tokenizer=tokenizer())
    config = SpeculationConfig("mtp", 3, switch=None)
    engine = EngineConfig(num_blocks=64, speculation=config)
    loaded = load(tmp_path, config=engine)
    try:
        modules = loaded.core.model.mtp
        assert len(modules) == num_modules
        for name, value in target.mtp.state_dict().items():
            assert torch.equal(modules.state_dict()[name], value)
        if isinstance(loaded, LLM):
            params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
            plain = LLM.load(tmp_path, config=EngineConfig(num_blocks=64))
            assert not len(plain.model.mtp)
            (ours,), (theirs,) = (one.generate([[5, 7, 9]], params) for one in (loaded, plain))
            assert ours.tokens == theirs.tokens
            assert loaded.stats().speculation.num_draft_tokens > 0
            assert loaded.core.runner.num_failed_proposals == 0
    finally:
        loaded.close() if isinstance(loaded, LLM) else loaded.shutdown()


def test_a_model_without_prediction_modules_says_so(tmp_path):
    save_model(tiny_model(), tmp_path, tokenizer=tokenizer())
    config = EngineConfig(num_blocks=64, speculation=SpeculationConfig("mtp"))
    with pytest.raises(UnsupportedError, match="nothing to predict with"):
        LLM.load(tmp_path, config=config)


def test_settings_and_heads_come_from_files(tmp_path):
    target = tiny_model()
    save_model(target, tmp_path / "model", tokenizer=tokenizer())
    save_speculator(EagleHead(target.spec, ffn_dim=16), tmp_path / "head")
    settings = {
        "num_blocks": 64,
        "speculation": {
            "kind": "eagle",
            "max_draft": 6,
            "path": str(tmp_path / "head"),
            "tree": {"branching": 2, "depth": 3},
            "switch": {"min_speedup": 0.5},
        },
    }
    llm = LLM.load(tmp_path / "model", config=from_mapping(EngineConfig, settings))
    plain = LLM(target, tokenizer(), EngineConfig(num_blocks=64))
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    (ours,), (theirs,) = (one.generate(["the quick"], params) for one in (llm, plain))
    assert ours.tokens == theirs.tokens
    assert llm.core.speculator.stats().num_draft_tokens > 0


@pytest.mark.parametrize("kind", ["draft", "mtp-one", "mtp-chain", "eagle", "block", "medusa"])
def test_the_memory_of_a_network_is_part_of_the_plan(kind):
    config, drafter, target = KINDS[kind]
    budget = 2**20
    engine = EngineConfig(kv_memory_bytes=budget, max_num_sequences=1, speculation=config)
    core = EngineCore(target(), config=engine, clock=VirtualClock(), drafter=drafter and drafter())
    per_block = sum(cache.size_bytes // cache.num_blocks for cache in core.runner.caches)
    memory = core.memory
    assert memory.block_bytes == per_block
    assert memory.num_blocks == (budget - memory.scratch_bytes) // per_block
    total = sum(cache.size_bytes for cache in core.runner.caches)
    assert total == memory.kv_bytes + memory.scratch_bytes
    assert budget - per_block < total <= budget


@pytest.mark.parametrize("branching", [1, 4])
def test_room_for_guesses_is_counted_for_every_sequence(branching: int):
    config = SpeculationConfig("eagle", 8, tree=TreeShape(branching, 5))
    settings = {"block_size": 4, "num_blocks": 16, "max_num_sequences": 3}
    engine = EngineConfig(**settings, speculation=config)
    core = EngineCore(trained(), config=engine, clock=VirtualClock(), drafter=eagle())
    (cache,) = core.speculator.caches
    num_scratch = cache.num_blocks - 16
    # The token drawn last and all that is followed, and one block where they begin within one.
    assert num_scratch == 3 * (-(-(1 + branching * 5) // 4) + 1)
    per_block = cache.size_bytes // cache.num_blocks
    assert core.memory.scratch_bytes == num_scratch * per_block
    assert "guesses" in core.memory.text
    plain = EngineCore(trained(), config=EngineConfig(**settings), clock=VirtualClock())
    assert "guesses" not in plain.memory.text
