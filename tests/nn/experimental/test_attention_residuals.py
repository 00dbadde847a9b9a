"""Row R15: attention residuals against their definition."""

from __future__ import annotations

import math

import pytest
import torch

from weft.nn.experimental.attention_residuals import DepthReader, run_in_blocks

DIM = 6


def reader(seed: int) -> DepthReader:
    module = DepthReader(DIM, dtype=torch.float64)
    with torch.no_grad():
        module.query.normal_(generator=torch.Generator().manual_seed(seed))
    return module


def branches(count: int) -> list[torch.nn.Linear]:
    torch.manual_seed(1)
    return [torch.nn.Linear(DIM, DIM, dtype=torch.float64) for _ in range(count)]


def naive(query: list[float], sources: list[list[float]]) -> list[float]:
    """One token with lists of numbers."""
    scores = []
    for source in sources:
        root = math.sqrt(sum(x * x for x in source) / DIM + 1e-6)
        scores.append(sum(q * x / root for q, x in zip(query, source, strict=True)))
    weights = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
    return [sum(w * s[d] for w, s in zip(weights, sources, strict=True)) for d in range(DIM)]


def test_a_reader_is_its_definition() -> None:
    sources_TND = torch.randn(5, 4, DIM, dtype=torch.float64)
    module = reader(0)
    for row, mixed_D in zip(sources_TND.tolist(), module(sources_TND), strict=True):
        expected = torch.tensor(naive(module.query.tolist(), row), dtype=torch.float64)
        torch.testing.assert_close(mixed_D, expected)
    sources_TND.requires_grad_()
    assert torch.autograd.gradcheck(module, sources_TND)


def test_a_fresh_reader_takes_the_mean() -> None:
    sources_TND = torch.randn(5, 4, DIM)
    torch.testing.assert_close(DepthReader(DIM)(sources_TND), sources_TND.mean(1))
    mixed_TD = DepthReader(DIM)(sources_TND.bfloat16())
    assert mixed_TD.dtype == torch.bfloat16


@pytest.mark.parametrize("block_size", [1, 2, 3, 5, 9])
def test_sources_are_sums_of_blocks(block_size: int) -> None:
    parts, readers = branches(5), [reader(seed) for seed in range(6)]
    embedded_TD = torch.randn(3, DIM, dtype=torch.float64)
    outputs: list[torch.Tensor] = []

    def mixed(index: int) -> torch.Tensor:
        blocks = [outputs[i : i + block_size] for i in range(0, len(outputs), block_size)]
        sources = [embedded_TD, *(torch.stack(block).sum(0) for block in blocks)]
        return readers[index](torch.stack(sources, dim=1))

    for index, part in enumerate(parts):
        outputs.append(part(mixed(index)))
    torch.testing.assert_close(run_in_blocks(embedded_TD, parts, readers, block_size), mixed(5))
