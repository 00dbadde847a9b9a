"""Training's context and the engine's give every recurrent layer the same numbers."""

from __future__ import annotations

import pytest
import torch

from tests.nn.paged import BLOCK_SIZE, assert_packed_equals_paged, paged_step
from tests.nn.recurrent.models import MIXERS, VOCAB_SIZE, build
from weft.nn.context import StepContext
from weft.nn.kv_cache import KVCache


@pytest.mark.parametrize("name", MIXERS)
def test_packed_equals_paged(name: str):
    assert_packed_equals_paged(build(name, hybrid=True), vocab_size=VOCAB_SIZE)


@pytest.mark.parametrize("name", MIXERS)
def test_documents_do_not_see_each_other(name: str):
    model = build(name)
    lengths = (5, 1, 70, 9)
    documents = torch.arange(sum(lengths)).remainder(VOCAB_SIZE).split(lengths)
    with torch.inference_mode():
        together = model(torch.cat(documents), StepContext.packed(lengths)).split(lengths)
        for document, got in zip(documents, together, strict=True):
            alone = model(document, StepContext.packed([len(document)]))
            torch.testing.assert_close(got, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MIXERS)
def test_tokens_do_not_see_later_ones(name: str):
    model = build(name)
    tokens = torch.arange(40).remainder(VOCAB_SIZE)
    changed = torch.cat([tokens[:23], tokens[23:] + 7])
    with torch.inference_mode():
        first = model(tokens, StepContext.packed([40]))
        second = model(changed, StepContext.packed([40]))
    torch.testing.assert_close(first[:23], second[:23], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(first[23:], second[23:])


@pytest.mark.parametrize("name", MIXERS)
def test_each_token_sees_the_one_before(name: str):
    model = build(name)
    with torch.inference_mode():
        one = model(torch.tensor([3, 4, 5]), StepContext.packed([3]))[-1]
        other = model(torch.tensor([3, 9, 5]), StepContext.packed([3]))[-1]
    assert not torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("name", MIXERS)
def test_prefill_and_decoding_share_a_step(name: str):
    """A prompt, a continued one and single tokens at once give what each gives alone."""
    model = build(name, hybrid=True)
    documents = [torch.arange(n).mul(7 + n).remainder(VOCAB_SIZE).tolist() for n in (6, 40, 9, 2)]
    starts = (5, 30, 0, 1)

    def cache() -> KVCache:
        return KVCache(model.spec, num_blocks=20, block_size=BLOCK_SIZE, num_sequences=6)

    blocks = [[0, 1], list(range(2, 12)), [12, 13, 14], [15]]
    slots = (4, 2, 5, 0)
    mixed = cache()
    alone: list[torch.Tensor] = []
    for tokens, start, table, slot in zip(documents, starts, blocks, slots, strict=True):
        single = cache()
        if start:
            paged_step(model, single, [(tokens[:start], 0, table, slot)])
            paged_step(model, mixed, [(tokens[:start], 0, table, slot)])
        alone.append(paged_step(model, single, [(tokens[start:], start, table, slot)]))
    work = [
        (tokens[start:], start, table, slot)
        for tokens, start, table, slot in zip(documents, starts, blocks, slots, strict=True)
    ]
    together = paged_step(model, mixed, work).split([len(tokens) for tokens, *_ in work])
    for got, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MIXERS)
def test_every_parameter_is_trained(name: str):
    model = build(name)
    hidden = model(torch.arange(30).remainder(VOCAB_SIZE), StepContext.packed([21, 9]))
    hidden.square().mul(torch.linspace(-1, 1, hidden.shape[1])).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name == "head.weight":
            continue
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", MIXERS)
def test_bfloat16_runs_and_stays_near_float32(name: str):
    model = build(name)
    tokens = torch.arange(40).remainder(VOCAB_SIZE)
    with torch.inference_mode():
        expected = model(tokens, StepContext.packed([25, 15]))
        got = model.bfloat16()(tokens, StepContext.packed([25, 15]))
    assert got.dtype == torch.bfloat16
    error = (got.float() - expected).norm() / expected.norm()
    assert error < 0.1
