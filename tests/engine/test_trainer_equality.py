"""What the engine says of a token is what the trainer says of it, to the bit.

Training computes whole documents side by side, the engine continues sequences over a cache. With
``deterministic`` both do the same operations for a token in the same order, so the ratio of
their probabilities, which policy gradients weigh tokens with, is exactly one.
"""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch

from tests.engine.support import VOCAB_SIZE, assert_nothing_left, make_llm
from weft.models.decoder import Decoder
from weft.models.heads import log_probs
from weft.nn.context import StepContext
from weft.ops.native.bindings import load_library
from weft.spec import ModelShape, SamplingParams

library = load_library()
EXACT = library is not None and library.wide_registers
# Elsewhere torch attends in training, in an order of its own.
TOLERANCE = 0.0 if EXACT else 1e-5
PARAMS = SamplingParams(max_tokens=6, seed=3, ignore_eos=True)


@functools.cache
def decoder(family: str = "qwen3", embed_scale: float = 1.0) -> Decoder:
    shape = ModelShape(
        family=family, dim=64, num_layers=2, num_heads=4, num_kv_heads=2, context_length=256
    )
    built = Decoder(shape.build(VOCAB_SIZE), seed=1).eval()
    built.embed.weight.data.mul_(embed_scale)
    return built


def prompts(num: int) -> list[list[int]]:
    """Return prompts of 1 to 130 tokens, several with a common beginning."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, VOCAB_SIZE, (num, 130), generator=generator).tolist()
    lengths = [70, 1, 130, 2, 17, 33, 5]
    shared = drawn[0][:20]
    return [
        (shared + tokens if index % 3 == 0 else tokens)[: lengths[index % len(lengths)]]
        for index, tokens in enumerate(drawn)
    ]


def differences(model, completions, temperature):
    """Return |trainer - engine| of every drawn token, the trainer with gradients."""
    sequences = [completion.prompt + completion.tokens for completion in completions]
    lengths = [len(sequence) for sequence in sequences]
    tokens_T = torch.tensor([token for sequence in sequences for token in sequence])
    hidden_TD = model(tokens_T, StepContext.packed(lengths))
    trained_T = log_probs(model, hidden_TD, tokens_T.roll(-1), temperature=temperature)
    assert trained_T.requires_grad
    trained = [
        part[-1 - len(completion.tokens) : -1]
        for part, completion in zip(trained_T.split(lengths), completions, strict=True)
    ]
    drawn = [torch.tensor(completion.logprobs) for completion in completions]
    return (torch.cat(trained).detach() - torch.cat(drawn)).abs()


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("chunk", [1, 3, 64])
@pytest.mark.parametrize("num", [1, 7, 64])
def test_log_probs_equal_the_trainers_however_they_were_scheduled(num, chunk, temperature):
    params = dataclasses.replace(PARAMS, temperature=temperature)
    llm = make_llm(
        decoder=decoder(),
        deterministic=True,
        num_blocks=2048,
        max_num_sequences=num,
        max_tokens_per_step=max(num, chunk),
        long_prefill_threshold=chunk,
    )
    drawn = []
    for _ in ("cold", "warm"):
        completions = llm.generate(prompts(num), params)
        drawn.append([completion.tokens for completion in completions])
        assert differences(decoder(), completions, temperature).max() <= TOLERANCE
    assert drawn[0] == drawn[1]
    assert completions[0].num_cached_tokens > 0
    assert_nothing_left(llm.core)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_preempted_sequences_keep_their_bits(family):
    llm = make_llm(
        decoder=decoder(family), deterministic=True, num_blocks=40, enable_prefix_cache=False
    )
    completions = llm.generate(prompts(7), PARAMS)
    assert llm.stats().scheduler.counters.num_preemptions > 0
    assert differences(decoder(family), completions, 1.0).max() <= TOLERANCE


def test_greedy_tokens_and_log_probs_do_not_depend_on_the_schedule():
    greedy = dataclasses.replace(PARAMS, temperature=0.0)
    served = []
    for chunk, num_together in ((1, 1), (3, 7), (64, 7)):
        llm = make_llm(
            decoder=decoder(),
            deterministic=True,
            num_blocks=2048,
            max_num_sequences=num_together,
            max_tokens_per_step=max(num_together, chunk),
        )
        completions = llm.generate(prompts(7), greedy)
        served.append([(completion.tokens, completion.logprobs) for completion in completions])
        assert differences(decoder(), completions, 1.0).max() <= TOLERANCE
    if EXACT:
        assert served[0] == served[1] == served[2]


@pytest.mark.skipif(not EXACT, reason="no C compiler or no AVX-512: torch attends in training")
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_large_logits_change_nothing(temperature):
    model = decoder("llama", 20.0)
    params = dataclasses.replace(PARAMS, temperature=temperature)
    llm = make_llm(decoder=model, deterministic=True, num_blocks=2048)
    completions = llm.generate(prompts(30), params, num_samples=2)
    assert differences(model, completions, temperature).max() == 0.0


@pytest.mark.skipif(not EXACT, reason="no C compiler or no AVX-512: torch attends in training")
def test_padding_is_what_makes_a_single_sequence_exact():
    largest = {}
    for deterministic in (False, True):
        llm = make_llm(decoder=decoder(), deterministic=deterministic, num_blocks=2048)
        completions = llm.generate(prompts(1), PARAMS)
        largest[deterministic] = float(differences(decoder(), completions, 1.0).max())
    assert largest[True] == 0.0 < largest[False] <= 1e-5
