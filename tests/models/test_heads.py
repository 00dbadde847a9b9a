"""The three uses of hidden states agree, with and without capped logits."""

from __future__ import annotations

import pytest
import torch

from weft.models import heads
from weft.models.decoder import Decoder
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec

TOKENS = 24


def decoder(softcap: float | None, *, tied: bool) -> Decoder:
    layer = LayerSpec(AttentionSpec(2, 2, 16), MLPSpec(32))
    spec = ModelSpec("gemma2", 61, 32, (layer,), tie_embeddings=tied, logit_softcap=softcap)
    model = Decoder(spec, seed=0)
    with torch.no_grad():
        model.head_weight.normal_(0.0, 0.5, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_logits_loss_and_log_probs_agree(softcap: float | None, tied: bool) -> None:
    model = decoder(softcap, tied=tied)
    generator = torch.Generator().manual_seed(2)
    hidden_TD = torch.randn(TOKENS, 32, generator=generator)
    labels_T = torch.randint(61, (TOKENS,), generator=generator)
    logits_TV = heads.logits(model, hidden_TD)
    plain_TV = hidden_TD @ model.head_weight.T
    expected_TV = plain_TV if softcap is None else softcap * torch.tanh(plain_TV / softcap)
    torch.testing.assert_close(logits_TV, expected_TV)
    logp_T = heads.log_probs(model, hidden_TD, labels_T, temperature=0.7, chunk_size=5)
    expected_T = (logits_TV / 0.7).log_softmax(-1).gather(-1, labels_T.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(logp_T, expected_T)
    loss, _ = heads.cross_entropy_sum(model, hidden_TD, labels_T, chunk_size=5)
    torch.testing.assert_close(loss, -heads.log_probs(model, hidden_TD, labels_T).sum())
