"""Heads learn the model's own distributions and leave the model alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from weft.core.errors import ConfigError
from weft.data.batch import Batch
from weft.models import heads
from weft.models.block_draft import BlockHead
from weft.models.decoder import Decoder
from weft.models.eagle import EagleHead
from weft.models.medusa import MedusaHeads
from weft.nn.context import StepContext
from weft.spec import ModelShape
from weft.train.speculators import HeadTraining, head_loss, train_head

LENGTHS = (5, 1, 4)
V = 20


def _model() -> Decoder:
    shape = ModelShape(dim=16, num_layers=1, num_heads=2, num_kv_heads=2)
    model = Decoder(shape.build(V), seed=1).eval()
    model.embed.weight.data.mul_(20)
    return model


def _batch(seed: int = 0) -> Batch:
    tokens = np.random.default_rng(seed).integers(0, V, sum(LENGTHS))
    return Batch(tokens, np.full(len(tokens), -100), LENGTHS)


def _logprobs(model: Decoder, hidden_D: torch.Tensor) -> torch.Tensor:
    return heads.logits(model, hidden_D[None]).log_softmax(dim=-1)[0]


def test_medusa_loss_compares_head_k_with_the_model_k_rows_later():
    model, head = _model(), MedusaHeads(16, 2)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    batch, total, count, first = _batch(), 0.0, 0.0, 0
    for length in LENGTHS:
        tokens = torch.from_numpy(batch.tokens_T[first : first + length])
        hidden_TD = model(tokens, StepContext.packed([length]))
        for steps, ahead_TD in enumerate(head(hidden_TD), start=1):
            for row in range(length - steps):
                wanted_V = _logprobs(model, hidden_TD[row + steps]).exp()
                weight = 0.8 ** (steps - 1)
                total -= weight * (wanted_V * _logprobs(model, ahead_TD[row])).sum()
                count += weight
        first += length
    loss = head_loss(model, head, batch)
    assert loss.loss_sum.item() == pytest.approx(total.item(), rel=1e-5)
    assert loss.count == pytest.approx(count)


def test_eagle_loss_reads_its_own_answers_one_position_later():
    model = _model()
    head = EagleHead(model.spec, ffn_dim=16)
    batch, total, count, first = _batch(), 0.0, 0, 0
    for length in LENGTHS:
        tokens = torch.from_numpy(batch.tokens_T[first : first + length])
        hidden_TD = known_TD = model(tokens, StepContext.packed([length]))
        for _ in range(2):
            ctx = StepContext.packed([length])
            ahead_T = torch.cat((tokens[1:], tokens.new_zeros(1)))
            answer_TD = head(known_TD, model.embed_tokens(ahead_T, ctx), ctx)
            for row in range(length - 1):
                wanted_V = _logprobs(model, hidden_TD[row + 1]).exp()
                total -= (wanted_V * _logprobs(model, answer_TD[row])).sum()
                count += 1
            known_TD = torch.cat((hidden_TD[:1], answer_TD[:-1]))
        first += length
    loss = head_loss(model, head, batch, run_ahead=2)
    assert loss.loss_sum.item() == pytest.approx(total.item(), rel=1e-5)
    assert loss.count == count


@pytest.mark.parametrize("kind", ["block", "eagle", "medusa"])
def test_training_lowers_the_loss_and_leaves_the_model_as_it_is(kind):
    model = _model()
    before = copy.deepcopy(model.state_dict())
    head = {
        "block": lambda: BlockHead(model.spec, ffn_dim=16, rank=4),
        "eagle": lambda: EagleHead(model.spec, ffn_dim=16),
        "medusa": lambda: MedusaHeads(16, 2),
    }[kind]()
    torch.manual_seed(0)
    losses = train_head(
        model, head, (_batch() for _ in range(99)), num_steps=40, config=HeadTraining(1e-2)
    )
    assert len(losses) == 40
    assert losses[-1] < 0.9 * losses[0]
    assert not head.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_block_loss_compares_places_with_the_rows_they_stand_for():
    """A document as long as one block and a token has one place for it."""
    model, head = _model(), BlockHead(_model().spec, ffn_dim=16, rank=4)
    torch.nn.init.normal_(head.bigram_out.weight)
    tokens = torch.tensor([3, 8, 5, 1])
    batch = Batch(tokens.numpy(), np.full(4, -100), (4,))
    hidden_TD = model(tokens, StepContext.packed([4]))
    embedded_1D = model.embed_tokens(tokens[1:2], StepContext.packed([1]))
    rows_TD = torch.cat((head.inject(hidden_TD[:1]), embedded_1D, head.mask.expand(2, -1)))
    answer_TD = head(rows_TD, StepContext.packed([4]))
    total = 0.0
    for row in (1, 2, 3):
        wanted_V = _logprobs(model, hidden_TD[row]).exp()
        scores_V = heads.logits(model, answer_TD[row : row + 1])[0] + head.bias(tokens[row])
        total -= (wanted_V * scores_V.log_softmax(dim=-1)).sum()
    loss = head_loss(model, head, batch, run_ahead=3)
    assert (loss.loss_sum / loss.count).item() == pytest.approx(total.item() / 3, rel=1e-5)


def test_a_head_runs_ahead_at_least_once():
    with pytest.raises(ConfigError, match="run_ahead"):
        HeadTraining(run_ahead=0)
