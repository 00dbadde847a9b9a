"""With experts too, the engine says of a token what the trainer says of it, to the bit."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from tests.engine.support import VOCAB_SIZE, assert_nothing_left, make_llm
from tests.engine.test_trainer_equality import PARAMS, TOLERANCE, differences, prompts
from weft.models.decoder import Decoder
from weft.spec import ExpertShape, MLPSpec, ModelShape, ModelSpec, MoESpec, RouterSpec

SHAPE = ModelShape(dim=64, num_layers=2, num_heads=4, num_kv_heads=2, context_length=256)
KINDS = {
    "softmax": MoESpec(8, 2, MLPSpec(24)),
    "sigmoid": MoESpec(
        8,
        3,
        MLPSpec(24),
        RouterSpec(score="sigmoid", correction_bias=True),
        shared=MLPSpec(24),
        shared_gate=True,
    ),
    "gpt-oss": MoESpec(
        6,
        2,
        MLPSpec(24, "clamped_swish", bias=True),
        RouterSpec(score="softmax_chosen", bias=True),
    ),
    "kimi-k3": MoESpec(8, 2, MLPSpec(24, "situ"), latent_dim=32),
}


@functools.cache
def decoder(kind: str) -> Decoder:
    dense = SHAPE.build(VOCAB_SIZE)
    layers = tuple(dataclasses.replace(layer, ffn=KINDS[kind]) for layer in dense.layers)
    spec: ModelSpec = dataclasses.replace(dense, layers=layers, family="moe")
    return Decoder(spec, seed=1).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num", "chunk"), [(1, 1), (7, 3), (24, 64)])
def test_log_probs_equal_the_trainers_however_they_were_scheduled(kind, num, chunk):
    model = decoder(kind)
    llm = make_llm(
        decoder=model,
        deterministic=True,
        num_blocks=2048,
        max_num_sequences=num,
        max_tokens_per_step=max(num, chunk),
        long_prefill_threshold=chunk,
    )
    completions = llm.generate(prompts(num), PARAMS)
    assert float(differences(model, completions, 1.0).max()) <= TOLERANCE
    assert_nothing_left(llm.core)


def test_a_shape_with_experts_becomes_a_model():
    shape = dataclasses.replace(
        SHAPE, family="glm4_moe", experts=ExpertShape(num_experts=4, shared_dim=16)
    )
    llm = make_llm(decoder=Decoder(shape.build(VOCAB_SIZE)), num_blocks=64)
    assert len(llm.generate([[1, 2, 3]], PARAMS)[0].tokens) == PARAMS.max_tokens
