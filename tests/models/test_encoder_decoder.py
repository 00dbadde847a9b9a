from __future__ import annotations

import torch

from tests.models.tiny import VOCAB_SIZE, flat, t5_spec, texts_of, tiny_encoder_decoder
from weft.models.encoder_decoder import EncoderDecoder

SOURCES, TARGETS = (9, 2, 14, 5, 3), (4, 11, 1, 6, 8)


def run(model: EncoderDecoder, sources, targets) -> torch.Tensor:
    with torch.inference_mode():
        return model(
            flat(sources), [len(s) for s in sources], flat(targets), [len(t) for t in targets]
        )


def test_a_pair_is_computed_alike_alone_and_among_others():
    model, sources, targets = tiny_encoder_decoder(), texts_of(0, SOURCES), texts_of(1, TARGETS)
    together = run(model, sources, targets).split(TARGETS)
    for source, target, hidden_TD in zip(sources, targets, together, strict=True):
        alone = run(model, [source], [target])
        torch.testing.assert_close(hidden_TD, alone, atol=2e-5, rtol=1e-5)


def test_targets_see_their_past_and_all_of_their_source():
    model, [source], [target] = tiny_encoder_decoder(), texts_of(0, (6,)), texts_of(1, (7,))
    before = run(model, [source], [target])
    later = [*target[:4], *((token + 1) % VOCAB_SIZE for token in target[4:])]
    torch.testing.assert_close(run(model, [source], [later])[:4], before[:4])
    changed = run(model, [[*source[:-1], (source[-1] + 1) % VOCAB_SIZE]], [target])
    assert ((changed - before).abs().amax(1) > 1e-4).all()


def test_source_and_target_share_one_embedding_that_learns_from_both():
    model = tiny_encoder_decoder()
    assert [n for n, _ in model.named_parameters() if n.endswith("embed.weight")] == [
        "decoder.embed.weight"
    ]
    hidden_TD = model(torch.tensor([5, 6]), [2], torch.tensor([7, 8, 9]), [3])
    hidden_TD.sum().backward()
    used = model.decoder.embed.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert used == [5, 6, 7, 8, 9]


def test_own_embeddings_are_possible():
    import dataclasses

    spec = dataclasses.replace(t5_spec(), shared_embedding=False)
    model = EncoderDecoder(spec)
    assert model.num_parameters == EncoderDecoder(t5_spec()).num_parameters + VOCAB_SIZE * 32
    model(torch.tensor([5, 6]), [2], torch.tensor([7]), [1]).sum().backward()
    assert model.encoder.embed.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [5, 6]


def test_output_scale_is_that_of_the_original_t5():
    plain, scaled = tiny_encoder_decoder(), tiny_encoder_decoder(scale_decoder_outputs=True)
    sources, targets = texts_of(0, (4,)), texts_of(1, (3,))
    torch.testing.assert_close(
        run(scaled, sources, targets), run(plain, sources, targets) * 32**-0.5
    )
