from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.models.tiny import VOCAB_SIZE, flat, scattered, t5_spec, texts_of
from weft.models.encoder_decoder import EncoderDecoder
from weft.models.fold_scale import fold_scale
from weft.spec import EncoderDecoderSpec
from weft.spec.families.encoders import encoder_decoder_to_hf


def scaled_spec(**sizes: int) -> EncoderDecoderSpec:
    """A T5 whose scores have the usual factor, which T5 cannot express."""

    def layers(stack):
        return tuple(
            dataclasses.replace(
                layer,
                mixer=dataclasses.replace(layer.mixer, scale=None),
                cross=layer.cross and dataclasses.replace(layer.cross, scale=None),
            )
            for layer in stack
        )

    spec = t5_spec(**sizes)
    return dataclasses.replace(
        spec,
        encoder=dataclasses.replace(spec.encoder, layers=layers(spec.encoder.layers)),
        decoder=dataclasses.replace(spec.decoder, layers=layers(spec.decoder.layers)),
    )


@pytest.mark.parametrize(("width", "tolerance"), [(16, 0.0), (8, 1e-4)])
def test_results_stay_and_the_family_can_express_them(width: int, tolerance: float):
    spec = scaled_spec(d_kv=width)
    model = scattered(EncoderDecoder(spec)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_scale(model)
    arguments = (flat(texts_of(0, (5, 9))), (5, 9), flat(texts_of(1, (7, 3))), (7, 3))
    with torch.inference_mode():
        torch.testing.assert_close(
            folded(*arguments), model(*arguments), atol=tolerance, rtol=tolerance
        )
    assert encoder_decoder_to_hf(folded.spec)["vocab_size"] == VOCAB_SIZE
    assert model.spec == spec
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
