from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.nn.mlp import ACTIVATIONS, MLP
from weft.spec import MLPSpec, ModelShape


def test_equal_seeds_give_equal_weights() -> None:
    spec = ModelShape(dim=32, num_layers=1).build(40)
    a, b, c = (Decoder(spec, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.embed.weight, c.embed.weight)


def test_a_tied_head_is_the_embedding_itself() -> None:
    tied = Decoder(ModelShape(dim=32, num_layers=1, tie_embeddings=True).build(40))
    assert tied.head_weight is tied.embed.weight
    untied = Decoder(ModelShape(dim=32, num_layers=1, tie_embeddings=False).build(40))
    assert untied.num_parameters == tied.num_parameters + 40 * 32


def test_meta_device_builds_without_memory() -> None:
    spec = ModelShape(dim=4096, num_layers=32, num_heads=32, num_kv_heads=8, ffn_dim=14336)
    model = Decoder(spec.build(128256), device="meta")
    assert model.num_parameters == 7_504_924_672  # Llama-3.1-8B less its untied head


def test_a_new_model_is_nearly_uniform() -> None:
    model = Decoder(ModelShape(dim=64, num_layers=4).build(300))
    tokens = torch.arange(64)
    hidden = model(tokens, StepContext.packed([64]))
    loss, count = heads.cross_entropy_sum(model, hidden, tokens)
    assert count.item() == 64
    assert (loss / count).item() == pytest.approx(math.log(300), abs=0.1)


def test_heads_agree_with_each_other_and_with_torch() -> None:
    model = Decoder(ModelShape(dim=32, num_layers=1).build(40), seed=3)
    tokens = torch.randint(40, (9,), generator=torch.Generator().manual_seed(0))
    labels = tokens.roll(-1)
    labels[-1] = -100
    hidden = model(tokens, StepContext.packed([9]))
    scores = heads.logits(model, hidden)
    loss, count = heads.cross_entropy_sum(model, hidden, labels, chunk_size=4)
    expected = F.cross_entropy(scores, labels, ignore_index=-100, reduction="sum")
    torch.testing.assert_close(loss, expected)
    assert count.item() == 8
    logp = heads.log_probs(model, hidden[:8], labels[:8], temperature=0.7, chunk_size=3)
    expected = torch.log_softmax(scores[:8] / 0.7, -1).gather(1, labels[:8, None])[:, 0]
    torch.testing.assert_close(logp, expected)
    torch.testing.assert_close(
        -heads.log_probs(model, hidden[:8], labels[:8]).sum(), loss, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("gated", [True, False])
def test_every_feed_forward_form_computes_its_formula(activation: str, gated: bool) -> None:
    mlp = MLP(8, MLPSpec(12, activation=activation, gated=gated, bias=True))
    x_TD = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    act = ACTIVATIONS[activation]
    if gated:
        gate, up = mlp.gate_up(x_TD).chunk(2, -1)
        expected = mlp.down(act(gate) * up)
    else:
        expected = mlp.down(act(mlp.up(x_TD)))
    torch.testing.assert_close(mlp(x_TD), expected)


def test_loss_does_not_depend_on_how_documents_are_packed() -> None:
    model = Decoder(ModelShape(dim=32, num_layers=2).build(40), seed=5)
    documents = [[1, 2, 3, 4], [5, 6, 7], [8, 9]]

    def loss_of(docs: list[list[int]]) -> torch.Tensor:
        flat = torch.tensor([t for d in docs for t in d])
        labels = torch.tensor([x for d in docs for x in (*d[1:], -100)])
        hidden = model(flat, StepContext.packed([len(d) for d in docs]))
        return heads.cross_entropy_sum(model, hidden, labels)[0]

    together = loss_of(documents)
    apart = sum((loss_of([d]) for d in documents), torch.tensor(0.0))
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)
