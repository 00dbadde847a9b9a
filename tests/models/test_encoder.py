from __future__ import annotations

import pytest
import torch

from tests.models.tiny import VOCAB_SIZE, bert_spec, flat, texts_of, tiny_encoder
from weft.core.errors import UnsupportedError
from weft.models.encoder import Encoder
from weft.models.pooling import pool
from weft.nn.context import StepContext
from weft.spec import PoolingSpec

LENGTHS = (9, 1, 14, 5, 3)


def test_a_text_is_read_alike_alone_and_among_others():
    model, texts = tiny_encoder(), texts_of(0, LENGTHS)
    with torch.inference_mode():
        together = model(flat(texts), StepContext.packed(LENGTHS)).split(LENGTHS)
        for text, hidden_TD in zip(texts, together, strict=True):
            alone = model(flat([text]), StepContext.packed([len(text)]))
            torch.testing.assert_close(hidden_TD, alone)


def test_every_token_sees_the_last_one():
    model, [text] = tiny_encoder(), texts_of(0, (6,))
    other = [*text[:-1], (text[-1] + 1) % VOCAB_SIZE]
    with torch.inference_mode():
        first, second = (model(flat([t]), StepContext.packed([6])) for t in (text, other))
    assert ((first - second).abs().amax(1) > 1e-4).all()


def test_segments_tell_equal_tokens_apart():
    model, [text] = tiny_encoder(), texts_of(0, (6,))
    types_T = torch.tensor([0, 0, 0, 1, 1, 1])
    with torch.inference_mode():
        plain, default, segments = (
            model(flat([text]), StepContext.packed([6]), types_T=types)
            for types in (torch.zeros_like(types_T), None, types_T)
        )
    assert torch.equal(plain, default)
    assert not torch.allclose(plain, segments)


def test_equal_seeds_give_equal_weights():
    first, second, other = (Encoder(bert_spec(), seed=seed) for seed in (3, 3, 4))
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.embed.weight, other.embed.weight)


def test_heads_exist_only_where_the_specification_has_them():
    hidden_TD = torch.zeros(3, 32)
    with pytest.raises(UnsupportedError, match="no head"):
        tiny_encoder().masked_lm_logits(hidden_TD)
    masked = tiny_encoder(architectures=["BertForMaskedLM"])
    assert masked.masked_lm_logits(hidden_TD).shape == (3, VOCAB_SIZE)
    with pytest.raises(UnsupportedError, match="no pooler"):
        masked.pool_first(hidden_TD, (3,))


@pytest.mark.parametrize("kind", ["mean", "cls", "max", "last"])
def test_pooling_is_that_of_each_text_alone(kind):
    hidden_TD = torch.randn(sum(LENGTHS), 8, generator=torch.Generator().manual_seed(0))
    vectors_BD = pool(hidden_TD, LENGTHS, PoolingSpec(kind, normalise=False))
    for vector_D, part_TD in zip(vectors_BD, hidden_TD.split(LENGTHS), strict=True):
        expected = {
            "mean": part_TD.mean(0),
            "cls": part_TD[0],
            "max": part_TD.amax(0),
            "last": part_TD[-1],
        }[kind]
        torch.testing.assert_close(vector_D, expected)
    unit_BD = pool(hidden_TD, LENGTHS, PoolingSpec(kind))
    torch.testing.assert_close(unit_BD.norm(dim=1), torch.ones(len(LENGTHS)))
    torch.testing.assert_close(unit_BD * vectors_BD.norm(dim=1, keepdim=True), vectors_BD)
