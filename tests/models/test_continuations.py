from __future__ import annotations

import pytest
import torch

from tests.models.tiny import VOCAB_SIZE, flat, scattered, texts_of, tiny_encoder_decoder
from weft.models import heads
from weft.models.continuations import Continuations
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.spec import (
    AttentionSpec,
    GatedDeltaNetSpec,
    LayerSpec,
    MLPSpec,
    ModelShape,
    ModelSpec,
)

STEPS = (
    # Rows that go on, by their place in the step before, and their new tokens.
    ([0, 0, 1, 2, 2, 2], [3, 4, 5, 6, 7, 8]),
    ([1, 0, 2, 5, 5], [9, 9, 10, 11, 12]),
    ([1, 4, 3, 3], [13, 14, 15, 16]),  # the second prompt has ended
    ([3], [17]),
)


@torch.inference_mode()
def check(continuations: Continuations, prompts: list[list[int]], full_logits) -> None:
    """Compare every step with whole sequences computed anew."""
    rows = [(number, list(prompt)) for number, prompt in enumerate(prompts)]
    logits_RV = continuations.start()
    for parents, tokens in (([], []), *STEPS):
        if parents:
            pairs = zip(parents, tokens, strict=True)
            rows = [(rows[parent][0], [*rows[parent][1], token]) for parent, token in pairs]
            logits_RV = continuations.advance(torch.tensor(parents), torch.tensor(tokens))
        for logits_V, (number, ids) in zip(logits_RV, rows, strict=True):
            torch.testing.assert_close(logits_V, full_logits(number, ids), atol=1e-4, rtol=1e-4)


def test_cached_rows_of_a_decoder_equal_whole_sequences():
    shape = ModelShape(dim=32, num_layers=2, num_heads=4, num_kv_heads=2)
    model, prompts = scattered(Decoder(shape.build(VOCAB_SIZE))), texts_of(0, (5, 1, 9))

    def full(number: int, ids: list[int]) -> torch.Tensor:
        hidden_TD = model(torch.tensor(ids), StepContext.packed([len(ids)]))
        return heads.logits(model, hidden_TD[-1:])[0]

    check(Continuations(model, prompts, max_tokens=4, num_beams=3), prompts, full)


def test_states_follow_the_rows_that_continue_them():
    layers = (
        LayerSpec(GatedDeltaNetSpec(2, 4, 8, 8), MLPSpec(48)),
        LayerSpec(AttentionSpec(4, 2, 8), MLPSpec(48)),
    )
    spec = ModelSpec("qwen3_next", VOCAB_SIZE, 32, layers)
    model, prompts = scattered(Decoder(spec)), texts_of(0, (5, 1, 9))

    def full(number: int, ids: list[int]) -> torch.Tensor:
        hidden_TD = model(torch.tensor(ids), StepContext.packed([len(ids)]))
        return heads.logits(model, hidden_TD[-1:])[0]

    check(Continuations(model, prompts, max_tokens=4, num_beams=3), prompts, full)


@pytest.mark.parametrize("scaled", [False, True])
def test_cached_rows_of_an_encoder_decoder_equal_whole_sequences(scaled: bool):
    model = tiny_encoder_decoder(scale_decoder_outputs=scaled)
    sources, prompts = texts_of(0, (5, 12, 3)), [[0], [0, 4], [0]]

    def full(number: int, ids: list[int]) -> torch.Tensor:
        source = sources[number]
        hidden_TD = model(torch.tensor(source), [len(source)], torch.tensor(ids), [len(ids)])
        return heads.logits(model.decoder, hidden_TD[-1:])[0]

    with torch.inference_mode():
        memory = model.encode(flat(sources), [len(source) for source in sources])
    found = Continuations(model, prompts, max_tokens=4, num_beams=3, memory=memory)
    check(found, prompts, full)


def test_memory_is_projected_once_per_layer(monkeypatch: pytest.MonkeyPatch):
    from weft.nn.cross_attention import CrossAttention

    calls = []
    original = CrossAttention._project

    def counted(self, hidden_SD):
        calls.append(self.layer)
        return original(self, hidden_SD)

    monkeypatch.setattr(CrossAttention, "_project", counted)
    model, sources = tiny_encoder_decoder(), texts_of(0, (5, 12, 3))
    with torch.inference_mode():
        memory = model.encode(flat(sources), [len(source) for source in sources])
        rows = Continuations(model, [[0]] * 3, max_tokens=4, num_beams=3, memory=memory)
        rows.start()
        for parents, tokens in STEPS:
            rows.advance(torch.tensor(parents), torch.tensor(tokens))
    assert calls == [0, 1, 2]
