"""MBU: gpt-fast's figures by gpt-fast's formula."""

from __future__ import annotations

import pytest

from tests.engine.test_weights import make_model, of_family
from weft.engine.bandwidth import decode_mbu, decode_weight_bytes, measure_bandwidth

A100_BANDWIDTH = 2.0e12
LLAMA_7B_PARAMETERS = 6_738_415_616
EMBEDDING = 32_000 * 4_096


@pytest.mark.parametrize(
    ("tokens_per_s", "bytes_per_weight", "percent"),
    [(25.5, 2, 17), (107.0, 2, 71), (157.4, 1, 52)],
    ids=["eager", "compiled, static cache", "int8"],
)
def test_figures_of_gpt_fast(tokens_per_s, bytes_per_weight, percent):
    """Llama-2-7B, batch 1: 25.5, 107.0 and 157.4 tokens per second."""
    weight_bytes = (LLAMA_7B_PARAMETERS - EMBEDDING) * bytes_per_weight
    assert round(100 * decode_mbu(weight_bytes, tokens_per_s, A100_BANDWIDTH)) == percent


def test_seventy_two_percent_count_the_embedding_too():
    """The published 72 % take the size of the whole model."""
    mbu = decode_mbu(2 * LLAMA_7B_PARAMETERS, 107.0, A100_BANDWIDTH)
    assert round(100 * mbu) == 72
    assert round(100 * decode_mbu(2 * LLAMA_7B_PARAMETERS, 25.5, A100_BANDWIDTH)) == 17


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_counts_where_it_is_the_head(tied):
    model = make_model(0, tie_embeddings=tied)
    total = sum(parameter.numel() * 4 for parameter in model.parameters())
    looked_up = 0 if tied else model.embed.weight.numel() * 4
    assert decode_weight_bytes(model) == total - looked_up


def test_only_the_experts_a_token_uses_count():
    model = of_family("qwen3_moe", 0)
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    others = sum(p.numel() for name, p in model.named_parameters() if ".experts." not in name)
    others -= model.embed.weight.numel()
    assert decode_weight_bytes(model) == 4 * (others + experts * 2 // 4)


def test_a_copy_has_a_rate():
    assert measure_bandwidth(size_bytes=2**20, num_rounds=1) > 0.0
