"""Row M12: the model with experts computes what the dense one does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from weft.checkpoint.hf import load_model, save_model
from weft.core.errors import ConfigError
from weft.models.decoder import Decoder
from weft.models.upcycle import split, upcycle
from weft.nn.context import StepContext
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelShape, ModelSpec, RouterSpec

SHAPE = ModelShape(dim=32, num_layers=3, num_heads=2, num_kv_heads=1, ffn_dim=48)
TOKENS = torch.arange(30) % 40


def dense(mlp: MLPSpec | None = None) -> Decoder:
    spec = SHAPE.build(40)
    if mlp is not None:
        layers = tuple(replace(layer, ffn=mlp) for layer in spec.layers)
        spec = replace(spec, layers=layers)
    model = Decoder(spec, seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return model


def outputs(model: Decoder) -> Tensor:
    return model(TOKENS, StepContext.packed([17, 13]))


MLPS = {
    "swiglu": MLPSpec(48),
    "swiglu-bias": MLPSpec(48, bias=True),
    "relu": MLPSpec(48, activation="relu", gated=False, bias=True),
}


@pytest.mark.parametrize("mlp", MLPS.values(), ids=MLPS)
@pytest.mark.parametrize(
    "router",
    [RouterSpec(), RouterSpec(score="sigmoid"), RouterSpec(score="softmax_chosen", bias=True)],
    ids=lambda router: router.score,
)
def test_copies_equal_the_dense_model_for_any_router(mlp: MLPSpec, router: RouterSpec):
    model = dense(mlp)
    sparse = upcycle(model, num_experts=4, top_k=2, router=router, seed=7)
    torch.testing.assert_close(outputs(sparse), outputs(model), atol=1e-5, rtol=1e-5)
    sparse.layers[0].ffn.router.weight.data.normal_(0.0, 3.0)
    torch.testing.assert_close(outputs(sparse), outputs(model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mlp", MLPS.values(), ids=MLPS)
def test_slices_together_equal_the_dense_model(mlp: MLPSpec):
    model = dense(mlp)
    sparse = split(model, num_experts=4)
    assert sparse.layers[0].ffn.spec.expert.hidden_dim == 12
    torch.testing.assert_close(outputs(sparse), outputs(model), atol=1e-5, rtol=1e-5)
    if not mlp.bias:
        assert sparse.num_parameters == model.num_parameters + 3 * 4 * 32, "only routers are new"
    part = split(model, num_experts=4, top_k=2)
    assert not torch.allclose(outputs(part), outputs(model), atol=1e-3)


def test_only_the_named_layers_change():
    model = dense()
    sparse = upcycle(model, num_experts=4, top_k=2, layers=[1])
    kinds = [isinstance(layer.ffn, MLPSpec) for layer in sparse.spec.layers]
    assert kinds == [True, False, True]
    torch.testing.assert_close(outputs(sparse), outputs(model), atol=1e-5, rtol=1e-5)


def test_an_upcycled_llama_is_saved_as_mixtral(tmp_path: Path):
    sparse = upcycle(dense(), num_experts=4, top_k=2)
    save_model(sparse, tmp_path)
    again = load_model(tmp_path)
    assert again.spec.family == "mixtral"
    assert torch.equal(outputs(again), outputs(sparse))


def test_experts_drift_apart_once_trained():
    sparse = upcycle(dense(), num_experts=4, top_k=1, router=RouterSpec())
    outputs(sparse).square().sum().backward()
    gradient = sparse.layers[0].ffn.experts.down.grad
    assert not torch.allclose(gradient[0], gradient[1])


def test_what_cannot_be_equal_is_refused():
    with pytest.raises(ConfigError, match="sum to one"):
        upcycle(dense(), num_experts=4, top_k=2, router=RouterSpec(normalise=False))
    with pytest.raises(ConfigError, match="48 does not split into 5"):
        split(dense(), num_experts=5)
    attention = AttentionSpec(2, 1, 16)
    spec = ModelSpec("mamba2", 40, 32, (LayerSpec(attention, None),))
    with pytest.raises(ConfigError, match="layer 0 has no dense"):
        upcycle(Decoder(spec), num_experts=4, top_k=2)
