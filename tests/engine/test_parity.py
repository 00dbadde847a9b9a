"""Against transformers: greedy tokens of tiny random models, and the logits processors."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.engine.sampling.rows import make_batch
from weft.checkpoint.hf import load_model
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.engine.sampling import pipeline
from weft.spec import SamplingParams

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")

NUM_NEW = 16
GREEDY = SamplingParams(temperature=0.0, max_tokens=NUM_NEW, ignore_eos=True)
SHAPE = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}


@pytest.fixture(scope="module", params=["llama", "llama-tied", "qwen3"])
def pair(request, tmp_path_factory):
    """A transformers model and ours, loaded from the folder transformers wrote."""
    kind, _, tied = request.param.partition("-")
    config_class, model_class = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    }[kind]
    torch.manual_seed(0)
    theirs = model_class(config_class(**SHAPE, tie_word_embeddings=bool(tied))).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(4.0 if parameter.dim() == 2 else 1.0)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    return theirs, load_model(folder)


def prompts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    shared = rng.integers(3, 300, 20).tolist()
    tails = [rng.integers(3, 300, size).tolist() for size in (1, 2, 5, 9, 17)]
    return [*tails, *(shared + tail for tail in tails)]


@functools.cache
def _generated(theirs) -> tuple[tuple[int, ...], ...]:
    answers = []
    for prompt in prompts():
        with torch.inference_mode():
            tokens = theirs.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                do_sample=False,
                max_new_tokens=NUM_NEW,
                eos_token_id=-1,
            )
        answers.append(tuple(tokens[0, len(prompt) :].tolist()))
    return tuple(answers)


def ours(model, prompts: Sequence[Sequence[int]], **settings) -> tuple[tuple[int, ...], ...]:
    llm = LLM(model, None, EngineConfig(**({"num_blocks": 128, "block_size": 8} | settings)))
    return tuple(completion.tokens for completion in llm.generate(list(prompts), GREEDY))


def test_alone(pair):
    theirs, model = pair
    got = tuple(ours(model, [prompt])[0] for prompt in prompts())
    assert got == _generated(theirs)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_tokens_per_step": 1, "max_num_sequences": 1},
        {"max_tokens_per_step": 3, "max_num_sequences": 3},
        {"max_tokens_per_step": 7, "max_num_sequences": 5},
        {"max_tokens_per_step": 64, "max_num_sequences": 64},
        {"block_size": 1, "num_blocks": 512},
        {"block_size": 5},
        {"enable_prefix_cache": False},
        {"long_prefill_threshold": 4},
    ],
    ids=lambda settings: ",".join(f"{k}={v}" for k, v in settings.items()) or "default",
)
def test_batched(pair, settings):
    theirs, model = pair
    assert ours(model, prompts(), **settings) == _generated(theirs)


def test_preempted(pair):
    theirs, model = pair
    # The longest request alone needs 53 positions.
    config = EngineConfig(num_blocks=14, block_size=4, enable_prefix_cache=False)
    llm = LLM(model, None, config)
    got = tuple(completion.tokens for completion in llm.generate(prompts(), GREEDY))
    assert llm.stats().scheduler.counters.num_preemptions > 0
    assert got == _generated(theirs)


def test_warm_prefix_cache(pair):
    theirs, model = pair
    llm = LLM(model, None, EngineConfig(num_blocks=128, block_size=4))
    for _ in range(2):
        completions = llm.generate(prompts(), GREEDY)
        assert tuple(completion.tokens for completion in completions) == _generated(theirs)
    assert sum(completion.num_cached_tokens for completion in completions) > 50


def test_end_token_stops_where_transformers_stops(pair):
    theirs, model = pair
    end = _generated(theirs)[0][5]
    llm = LLM(model, None, EngineConfig(num_blocks=128))
    params = SamplingParams(temperature=0, max_tokens=NUM_NEW, stop_token_ids=(end,))
    tokens = llm.generate([prompts()[0]], params)[0].tokens
    stop = _generated(theirs)[0].index(end)
    assert tokens == _generated(theirs)[0][: stop + 1]


@pytest.mark.parametrize(
    ("params", "processors"),
    [
        (
            {"temperature": 0.7, "top_k": 12},
            [("Temperature", (0.7,)), ("TopK", (12,))],
        ),
        (
            {"temperature": 1.3, "top_k": 30, "top_p": 0.8},
            [("Temperature", (1.3,)), ("TopK", (30,)), ("TopP", (0.8,))],
        ),
        (
            {"temperature": 0.9, "top_p": 0.6, "min_p": 0.08},
            [("Temperature", (0.9,)), ("TopP", (0.6,)), ("MinP", (0.08,))],
        ),
        ({"repetition_penalty": 1.4, "top_p": 0.9}, [("Repetition", (1.4,)), ("TopP", (0.9,))]),
    ],
)
def test_chain_equals_the_logits_processors(params, processors):
    classes = {
        "Temperature": transformers.TemperatureLogitsWarper,
        "TopK": transformers.TopKLogitsWarper,
        "TopP": transformers.TopPLogitsWarper,
        "MinP": transformers.MinPLogitsWarper,
        "Repetition": transformers.RepetitionPenaltyLogitsProcessor,
    }
    torch.manual_seed(0)
    logits = torch.randn(16, 500) * 3
    history = torch.randint(0, 500, (16, 40))
    expected = logits.clone()
    for name, arguments in processors:
        expected = classes[name](*arguments)(history, expected)
    batch = make_batch([SamplingParams(**params)] * 16, prompts=history.tolist())
    pipeline.apply_penalties(logits, batch.penalties)
    got = pipeline.shape(logits, batch).softmax(-1)
    torch.testing.assert_close(got, expected.softmax(-1), rtol=1e-5, atol=1e-7)


def test_min_tokens_equals_the_logits_processor():
    theirs = transformers.MinNewTokensLengthLogitsProcessor(4, 3, [7, 9], device="cpu")
    for num_output in range(5):
        logits = torch.randn(1, 20)
        expected = theirs(torch.zeros(1, 4 + num_output, dtype=torch.int64), logits.clone())
        batch = make_batch(
            [SamplingParams(min_tokens=3)], outputs=[[0] * num_output], end_tokens=(7, 9)
        )
        pipeline.apply_bans(logits, batch)
        assert torch.equal(logits, expected)
