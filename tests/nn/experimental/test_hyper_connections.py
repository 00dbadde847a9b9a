"""Row R12: manifold-constrained hyper-connections against their definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from weft.nn.experimental.hyper_connections import HyperConnection, sinkhorn


def random_connection(num_streams: int = 3, dim: int = 8) -> HyperConnection:
    torch.manual_seed(0)
    connection = HyperConnection(dim, num_streams=num_streams)
    with torch.no_grad():
        for parameter in connection.parameters():
            parameter.normal_()
    return connection


def naive(connection: HyperConnection, streams_SD: list[list[float]], branch) -> Tensor:
    """One token with lists of numbers."""
    num, eps = connection.num_streams, connection.eps
    flat = [x for stream in streams_SD for x in stream]
    root = math.sqrt(sum(x * x for x in flat) / len(flat) + connection.norm_eps)
    rows = connection.project.weight.tolist()
    raw = [sum(w * x / root for w, x in zip(row, flat, strict=True)) for row in rows]
    base, scales = connection.base.tolist(), connection.scales.tolist()
    scaled = [
        value * scales[0 if i < num else 1 if i < 2 * num else 2] + base[i]
        for i, value in enumerate(raw)
    ]
    pre = [1 / (1 + math.exp(-x)) + eps for x in scaled[:num]]
    post = [2 / (1 + math.exp(-x)) for x in scaled[num : 2 * num]]
    comb = []
    for row in range(num):
        exps = [math.exp(x) for x in scaled[(2 + row) * num : (3 + row) * num]]
        comb.append([x / sum(exps) + eps for x in exps])
    for step in range(2 * connection.num_iterations - 1):
        if step % 2 == 0:
            sums = [sum(comb[i][j] for i in range(num)) + eps for j in range(num)]
            comb = [[comb[i][j] / sums[j] for j in range(num)] for i in range(num)]
        else:
            comb = [[x / (sum(row) + eps) for x in row] for row in comb]
    dim = len(streams_SD[0])
    joined = [sum(pre[s] * streams_SD[s][d] for s in range(num)) for d in range(dim)]
    out = branch(torch.tensor([joined]))[0].tolist()
    return torch.tensor(
        [
            [post[s] * out[d] + sum(comb[r][s] * streams_SD[r][d] for r in range(num))
             for d in range(dim)]
            for s in range(num)
        ]
    )  # fmt: skip


def test_streams_after_a_branch_are_those_of_the_definition() -> None:
    connection = random_connection()
    streams_TSD = torch.randn(4, 3, 8)
    actual = connection(streams_TSD, torch.tanh)
    for token, streams_SD in enumerate(streams_TSD.tolist()):
        expected = naive(connection, streams_SD, torch.tanh)
        torch.testing.assert_close(actual[token], expected, atol=1e-5, rtol=1e-5)


def test_mixing_is_doubly_stochastic_and_never_enlarges_the_streams() -> None:
    connection = random_connection()
    with torch.no_grad():  # 20 divisions leave rows of very unequal numbers a little off
        for parameter in connection.parameters():
            parameter.mul_(0.3)
    streams_TSD = torch.randn(16, 3, 8)
    _, _, comb_TSS = connection.weights(streams_TSD)
    ones = torch.ones(16, 3)
    torch.testing.assert_close(comb_TSS.sum(1), ones, atol=1e-3, rtol=0)
    torch.testing.assert_close(comb_TSS.sum(2), ones, atol=1e-3, rtol=0)
    mixed_TSD = comb_TSS.transpose(1, 2) @ streams_TSD
    assert (mixed_TSD.norm(dim=(1, 2)) <= streams_TSD.norm(dim=(1, 2)) * 1.001).all()


def test_sinkhorn_leaves_a_doubly_stochastic_matrix_alone() -> None:
    matrix_TSS = torch.tensor([[[0.25, 0.75], [0.75, 0.25]]])
    torch.testing.assert_close(sinkhorn(matrix_TSS, 20, 0.0), matrix_TSS)


@pytest.mark.parity
def test_streams_equal_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4HyperConnection

    ours = random_connection(4, 16)
    config = transformers.DeepseekV4Config(hidden_size=16, hc_mult=4)
    theirs = DeepseekV4HyperConnection(config)
    theirs.load_state_dict({"fn": ours.project.weight, "base": ours.base, "scale": ours.scales})
    streams_TSD = torch.randn(5, 4, 16)
    post, comb, joined = theirs(streams_TSD[None])
    expected = post[..., None] * joined.tanh().unsqueeze(-2) + comb.mT @ streams_TSD
    torch.testing.assert_close(ours(streams_TSD, torch.tanh), expected[0], atol=1e-5, rtol=1e-5)
