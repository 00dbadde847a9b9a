"""Encoders and encoder-decoders against transformers, both directions."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.parity import harness
from tests.parity.cases.encoders import ENCODER_DECODERS, ENCODERS
from tests.parity.harness import VOCAB_SIZE, Case
from weft.checkpoint.encoders import (
    encoder_decoder_parts,
    encoder_parts,
    load_encoder,
    load_encoder_decoder,
    named_tensors,
    save_encoder,
    save_encoder_decoder,
)
from weft.models import heads
from weft.models.continuations import Continuations
from weft.models.encoder import Encoder
from weft.models.encoder_decoder import EncoderDecoder
from weft.models.search import BeamConfig, beam_search, greedy_search
from weft.nn.context import StepContext

pytest.importorskip("transformers")

LENGTHS = (11, 7)
EncoderPair = tuple[Case, nn.Module, Encoder]
EncoderDecoderPair = tuple[Case, nn.Module, EncoderDecoder]


def params(cases: dict[str, Case]) -> list:
    return [
        pytest.param(name, marks=() if case.sample else pytest.mark.parity)
        for name, case in sorted(cases.items())
    ]


@pytest.fixture(params=params(ENCODERS))
def encoders(request: pytest.FixtureRequest, tmp_path: Path) -> EncoderPair:
    case = ENCODERS[request.param]
    theirs = harness.reference(case)
    theirs.save_pretrained(tmp_path / "theirs")
    return case, theirs, load_encoder(tmp_path / "theirs", dtype=torch.float32)


@pytest.fixture(params=params(ENCODER_DECODERS))
def encoder_decoders(request: pytest.FixtureRequest, tmp_path: Path) -> EncoderDecoderPair:
    case = ENCODER_DECODERS[request.param]
    theirs = harness.reference(case)
    if "own-head" in request.param:  # as in published v1.1 checkpoints; their config cannot say it
        theirs.lm_head.weight = nn.Parameter(torch.randn(VOCAB_SIZE, 48) * 0.2)
    theirs.save_pretrained(tmp_path / "theirs")
    return case, theirs, load_encoder_decoder(tmp_path / "theirs", dtype=torch.float32)


def padded(texts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return texts as rows and which of their positions exist."""
    rows = nn.utils.rnn.pad_sequence(texts, batch_first=True)
    lengths = torch.tensor([len(text) for text in texts])
    return rows, (torch.arange(rows.shape[1]) < lengths.unsqueeze(1)).long()


def test_encoders_give_the_same_hidden_states_and_heads(encoders: EncoderPair):
    case, theirs, ours = encoders
    texts = [harness.tokens_of(seed, length) for seed, length in enumerate(LENGTHS)]
    types = [torch.arange(n) % min(2, ours.spec.num_token_types) for n in LENGTHS]
    rows, mask = padded(texts)
    with torch.inference_mode():
        expected = theirs(rows, attention_mask=mask, token_type_ids=padded(types)[0])
        hidden_TD = ours(torch.cat(texts), StepContext.packed(LENGTHS), types_T=torch.cat(types))
        if ours.masked_lm is not None:
            actual, wanted = ours.masked_lm_logits(hidden_TD), expected.logits
        else:
            actual, wanted = hidden_TD, expected.last_hidden_state
            pooled_BD = ours.pool_first(hidden_TD, LENGTHS)
            torch.testing.assert_close(pooled_BD, expected.pooler_output, atol=1e-5, rtol=1e-5)
    wanted = torch.cat([row[:n] for row, n in zip(wanted, LENGTHS, strict=True)])
    torch.testing.assert_close(actual, wanted, atol=case.atol, rtol=1e-5)


def test_encoders_have_the_same_gradients(encoders: EncoderPair, tmp_path: Path):
    _, theirs, ours = encoders
    tokens_T = harness.tokens_of(3, 12)
    output = theirs(tokens_T[None])
    hidden_TD = ours(tokens_T, StepContext.packed([12]))
    if ours.masked_lm is not None:
        (output.logits**2).mean().backward()
        (ours.masked_lm_logits(hidden_TD) ** 2).mean().backward()
    else:
        (output.last_hidden_state[..., :5].sum() + output.pooler_output[..., :3].sum()).backward()
        pooled_BD = ours.pool_first(hidden_TD, (12,))
        (hidden_TD[:, :5].sum() + pooled_BD[:, :3].sum()).backward()
    compare_gradients(theirs, ours, encoder_parts(ours.spec), tmp_path)


def test_encoder_decoders_give_the_same_logits(encoder_decoders: EncoderDecoderPair):
    case, theirs, ours = encoder_decoders
    sources = [harness.tokens_of(seed, n) for seed, n in enumerate((29, 13))]
    targets = [harness.tokens_of(seed + 5, n) for seed, n in enumerate((9, 23))]
    rows, mask = padded(sources)
    with torch.inference_mode():
        expected = theirs(
            input_ids=rows, attention_mask=mask, decoder_input_ids=padded(targets)[0]
        ).logits
        hidden_TD = ours(torch.cat(sources), (29, 13), torch.cat(targets), (9, 23))
        actual = heads.logits(ours.decoder, hidden_TD)
    wanted = torch.cat([expected[0, :9], expected[1, :23]])
    torch.testing.assert_close(actual, wanted, atol=case.atol, rtol=1e-5)


def test_encoder_decoders_have_the_same_gradients(
    encoder_decoders: EncoderDecoderPair, tmp_path: Path
):
    _, theirs, ours = encoder_decoders
    source_T, labels_T = harness.tokens_of(3, 12), harness.tokens_of(4, 9)
    theirs(input_ids=source_T[None], labels=labels_T[None]).loss.backward()
    fed_T = torch.cat([torch.tensor([ours.spec.start_id]), labels_T[:-1]])
    hidden_TD = ours(source_T, (12,), fed_T, (9,))
    loss, count = heads.cross_entropy_sum(ours.decoder, hidden_TD, labels_T)
    (loss / count).backward()
    compare_gradients(theirs, ours, encoder_decoder_parts(ours.spec), tmp_path)


def compare_gradients(theirs: nn.Module, ours: nn.Module, parts, folder: Path) -> None:
    expected = harness.gradients_as_files(theirs, folder, ())
    holder, gradients = copy.deepcopy(ours), dict(ours.named_parameters())
    for name, tensor in holder.state_dict().items():
        gradient = gradients[name].grad
        tensor.copy_(torch.zeros_like(tensor) if gradient is None else gradient)
    compared = 0
    for name, gradient in named_tensors(holder, parts):
        wanted = expected.read(name)
        # Logits of an unscaled T5 are large, and with them gradients and their rounding.
        atol = 2e-6 * max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(gradient, wanted, atol=atol, rtol=2e-4, msg=name)
        compared += bool(gradient.abs().max() > 0)
    assert compared > 20


def test_the_way_back_of_encoders(encoders: EncoderPair, tmp_path: Path):
    _, theirs, ours = encoders
    save_encoder(ours, tmp_path)
    check_way_back(theirs, tmp_path)


def test_the_way_back_of_encoder_decoders(encoder_decoders: EncoderDecoderPair, tmp_path: Path):
    _, theirs, ours = encoder_decoders
    save_encoder_decoder(ours, tmp_path)
    again = check_way_back(theirs, tmp_path)
    assert again.config.scale_decoder_outputs == theirs.config.scale_decoder_outputs


def check_way_back(theirs: nn.Module, folder: Path) -> nn.Module:
    again, report = type(theirs).from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected, actual = theirs.state_dict(), again.state_dict()
    assert expected.keys() == actual.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name
    return again


@pytest.mark.parametrize("num_beams", [1, 4])
def test_searches_find_what_generate_finds(encoder_decoders: EncoderDecoderPair, num_beams: int):
    _, theirs, ours = encoder_decoders
    sources = [harness.tokens_of(seed, n).tolist() for seed, n in ((3, 9), (4, 14), (5, 3))]
    expected = []
    for source in sources:
        ids = theirs.generate(
            torch.tensor([source]), max_new_tokens=12, do_sample=False, num_beams=num_beams,
            length_penalty=0.0,
        )  # fmt: skip
        expected.append([token for token in ids[0, 1:].tolist() if token != 1])
    with torch.inference_mode():
        memory = ours.encode(
            torch.tensor([token for source in sources for token in source]),
            [len(source) for source in sources],
        )
    rows = Continuations(
        ours, [[ours.spec.start_id]] * 3, max_tokens=12, num_beams=num_beams, memory=memory
    )
    if num_beams == 1:
        found = greedy_search(rows, [12] * 3, {1})
    else:
        beams = beam_search(rows, [12] * 3, {1}, BeamConfig(num_beams, length_penalty=0.0))
        found = [best for [best] in beams]
    assert [list(hypothesis.tokens) for hypothesis in found] == expected
