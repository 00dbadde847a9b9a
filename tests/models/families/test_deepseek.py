"""Published sizes of models with latent attention, counted on the meta device."""

from __future__ import annotations

import pytest

from tests.spec.deepseek import DEEPSEEK_V3, PUBLISHED
from weft.models.decoder import Decoder
from weft.models.families import rules
from weft.models.hf_keys import parts
from weft.spec.families import spec_from_hf, with_mtp

# With the balancing bias of every expert, which is a buffer here.
SIZES = {
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v2": 235_741_434_880,
    "deepseek-v3": 671_026_419_200,
    "deepseek-v3.2": 671_877_944_064,
    "kimi-k2": 1_026_408_232_448,
}


@pytest.mark.parametrize("name", SIZES)
def test_published_model_has_its_size(name: str) -> None:
    model = Decoder(spec_from_hf(PUBLISHED[name]), device="meta")
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == SIZES[name]


@pytest.mark.parametrize("name", SIZES)
def test_key_map_covers_every_tensor_once(name: str) -> None:
    spec = spec_from_hf({**PUBLISHED[name], "num_hidden_layers": 4})
    state = Decoder(spec, device="meta").state_dict()
    filled = dict.fromkeys(state, 0)
    for part in parts(rules(spec)):
        tensor = state[part.ours]
        tensor = tensor if part.index is None else tensor[part.index]
        size = tensor.shape[part.axis] if part.size is None else part.size
        filled[part.ours] += tensor.numel() // tensor.shape[part.axis] * size
    assert filled == {key: tensor.numel() for key, tensor in state.items()}


def test_module_of_multi_token_prediction_has_its_own_parameters() -> None:
    spec = with_mtp(spec_from_hf(DEEPSEEK_V3), DEEPSEEK_V3)
    model = Decoder(spec, device="meta")
    assert sum(parameter.numel() for parameter in model.mtp.parameters()) == 11_610_067_968


def test_layer_with_experts_of_deepseek_v3_has_its_size() -> None:
    model = Decoder(spec_from_hf(DEEPSEEK_V3), device="meta")
    tensors = model.layers[3].ffn.state_dict().values()
    assert sum(tensor.numel() for tensor in tensors) == 11_320_164_608
