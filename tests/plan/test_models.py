from __future__ import annotations

import pytest

from weft.core.errors import ConfigError
from weft.plan.accounting import active_weights
from weft.plan.matrices import layer_matrices
from weft.plan.models import model_names, public_model
from weft.spec import zoo


def total_weights(name: str) -> float:
    spec = public_model(name)
    layers = sum(m.weights for layer in spec.layers for m in layer_matrices(layer, spec.dim))
    return layers + spec.vocab_size * spec.dim * (1 if spec.tie_embeddings else 2)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Llama-2-7B", 6.74),
        ("Llama-3.1-70B", 70.55),
        ("Llama-3.1-405B", 405.85),
        ("Qwen2.5-32B", 32.76),
        ("Mixtral-8x7B", 46.70),
        ("Qwen3-235B-A22B", 235.09),
        ("gpt-oss-120b", 116.8),
        ("DeepSeek-R1", 671.03),
        ("Kimi-K2.5", 1026.4),
    ],
)
def test_matrices_add_up_to_the_published_size(name: str, billions: float):
    assert total_weights(name) / 1e9 == pytest.approx(billions, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "billions"), [("DeepSeek-V3", 37.5), ("Qwen3-235B-A22B", 22.2), ("Kimi-K2", 32.9)]
)
def test_active_weights_are_those_of_the_name(name: str, billions: float):
    spec = public_model(name)
    layers = sum(active_weights(layer, spec.dim) for layer in spec.layers)
    active = layers + 2 * spec.vocab_size * spec.dim
    assert active / 1e9 == pytest.approx(billions, rel=0.02)


def test_every_alias_and_shape_can_be_built():
    own = [name for name in model_names() if name not in zoo.names()]
    assert len(own) > 15
    assert all(public_model(name).num_layers > 0 for name in own)


def test_names_are_found_whatever_their_case():
    assert public_model("deepseek-r1") == zoo.spec("deepseek-r1")
    assert public_model(" LLAMA-3.3-70b-instruct ") == zoo.spec("llama-3.3-70b")


def test_every_second_layer_of_gpt_oss_has_a_window():
    windows = [layer.mixer.window for layer in public_model("gpt-oss-120b").layers[:4]]
    assert windows == [128, None, 128, None]


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        public_model("Lama-3.1-70B")
    assert "llama-3.1-70b" in str(caught.value.fix)
