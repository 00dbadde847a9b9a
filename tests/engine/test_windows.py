"""A model whose layers all have a window keeps no more than the window of a sequence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.engine.memory import plan_memory
from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec, SamplingParams

WINDOW = 6
CONFIG = EngineConfig(
    block_size=4, max_tokens_per_step=8, max_num_sequences=4, enable_prefix_cache=False
)
RING = 4  # blocks: ceil((WINDOW - 1 + 8) / 4)


def decoder(*windows: int | None) -> Decoder:
    mixer = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16)
    layers = tuple(LayerSpec(replace(mixer, window=window), MLPSpec(48)) for window in windows)
    model = Decoder(ModelSpec("mistral", 61, 32, layers, context_length=96), seed=2)
    with torch.no_grad():
        model.embed.weight *= 40.0  # logits far enough apart for greedy tokens to be certain
    return model


def greedy(model: Decoder, prompt: list[int], num_tokens: int) -> list[int]:
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(num_tokens):
            hidden_TD = model(torch.tensor(tokens), StepContext.packed([len(tokens)]))
            tokens.append(int(heads.logits(model, hidden_TD[-1:]).argmax()))
    return tokens[len(prompt) :]


def test_long_outputs_come_out_of_a_cache_of_one_window_each() -> None:
    model = decoder(WINDOW, WINDOW - 2, WINDOW)
    llm = LLM(model, None, replace(CONFIG, num_blocks=2 * RING))
    prompts = [list(range(1, 30)), [5, 3, 8], list(range(40, 20, -1))]
    sampling = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
    completions = llm.generate(prompts, sampling)
    for prompt, completion in zip(prompts, completions, strict=True):
        assert list(completion.tokens) == greedy(model, prompt, 40)


@pytest.mark.parametrize(
    ("windows", "prefix_cache", "blocks"),
    [
        ((WINDOW, WINDOW), False, RING),
        ((WINDOW, None), False, 24),
        ((WINDOW, WINDOW), True, 24),
        ((WINDOW, 200), False, 24),
    ],
)
def test_the_pool_is_sized_by_the_window_only_where_every_layer_has_one(
    windows: tuple[int | None, ...], prefix_cache: bool, blocks: int
) -> None:
    config = replace(CONFIG, enable_prefix_cache=prefix_cache)
    assert plan_memory(config, decoder(*windows)).num_blocks == 4 * blocks
