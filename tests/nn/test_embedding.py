"""Looking up is multiplying by one-hot rows, in values and gradients (row R04)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.nn.embedding import Embedding
from weft.spec import ModelShape

V, D = 11, 6
IDS_T = torch.tensor([3, 1, 3, 3, 0, 10])  # 3 comes up more than once


def test_a_table_has_a_number_per_token_and_channel() -> None:
    assert sum(parameter.numel() for parameter in Embedding(V, D).parameters()) == V * D
    assert Embedding(V, D, device="meta").weight.is_meta


def test_sparse_and_dense_gradients_are_equal() -> None:
    torch.manual_seed(0)
    table = Embedding(V, D, dtype=torch.float64)
    upstream_TD = torch.randn(len(IDS_T), D, dtype=torch.float64)
    outputs, gradients = [], []
    for look_up in (
        table,
        lambda ids_T: F.embedding(ids_T, table.weight, sparse=True),
        lambda ids_T: F.one_hot(ids_T, V).double() @ table.weight,
    ):
        table.zero_grad()
        rows_TD = look_up(IDS_T)
        rows_TD.backward(upstream_TD)
        outputs.append(rows_TD)
        assert table.weight.grad is not None
        gradients.append(table.weight.grad.to_dense().clone())
    for rows_TD, gradient_VD in zip(outputs[1:], gradients[1:], strict=True):
        torch.testing.assert_close(rows_TD, outputs[0])
        torch.testing.assert_close(gradient_VD, gradients[0])
    touched = gradients[0].abs().sum(-1) > 0
    assert touched.nonzero().flatten().tolist() == [0, 1, 3, 10]


def test_a_tied_head_compares_with_every_row_and_adds_its_gradient() -> None:
    model = Decoder(ModelShape(dim=32, num_layers=1, tie_embeddings=True).build(40), seed=0)
    hidden_TD = model(IDS_T, StepContext.packed([len(IDS_T)]))
    logits_TV = heads.logits(model, hidden_TD)
    torch.testing.assert_close(logits_TV, hidden_TD @ model.embed.weight.T)
    logits_TV.square().sum().backward()
    assert model.embed.weight.grad is not None
    assert bool((model.embed.weight.grad.abs().sum(-1) > 0).all()), "unused tokens learn too"
