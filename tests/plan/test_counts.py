"""Counts from the specification equal the real modules and torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.ops.attention.packed import packed_attention
from weft.plan.flops import attended_pairs, forward_flops, training_flops
from weft.plan.parameters import count_parameters
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelShape, ModelSpec
from weft.spec.families import spec_from_hf

SPECS = [
    ModelShape(dim=64, num_layers=2).build(101),
    ModelShape(family="qwen3", dim=64, head_dim=24, tie_embeddings=False).build(101),
    ModelSpec(
        "llama",
        77,
        48,
        (LayerSpec(AttentionSpec(4, 1, 12, qkv_bias=True, out_bias=True), MLPSpec(80, bias=True)),),
    ),
]


@pytest.mark.parametrize("spec", SPECS)
def test_parameters_equal_the_module(spec: ModelSpec) -> None:
    assert count_parameters(spec).total == Decoder(spec, device="meta").num_parameters


def test_a_published_count() -> None:
    llama_3_2_1b = {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "tie_word_embeddings": True,
    }
    assert count_parameters(spec_from_hf(llama_3_2_1b)).total == 1_235_814_400


def linear_flops(x: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    """Count oneDNN's linear map, which torch's counter does not know."""
    return 2 * x[0] * weight[0] * weight[1]


@pytest.mark.parametrize("spec", SPECS)
def test_linear_and_head_flops_equal_the_counter(spec: ModelSpec) -> None:
    model = Decoder(spec)
    tokens = torch.zeros(24, dtype=torch.int64)
    onednn = {torch.ops.mkldnn._linear_pointwise: linear_flops}
    with FlopCounterMode(display=False, custom_mapping=onednn) as counter, torch.no_grad():
        heads.logits(model, model(tokens, StepContext.packed([24])))
    counted = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counted.items() if "linear" in str(op) or ".mm" in str(op))
    predicted = forward_flops(spec, [24])
    assert products == predicted.linear + predicted.head


def test_attention_flops_equal_the_counter_without_the_causal_half() -> None:
    spec = SPECS[0]
    # The C kernel and the fused CPU kernel are invisible to torch's counter; plain maths is not.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        for layer in spec.layers:
            mixer = layer.mixer
            num_heads = (mixer.num_heads, mixer.num_kv_heads, mixer.num_kv_heads)
            q, k, v = (torch.randn(24, heads, mixer.head_dim) for heads in num_heads)
            packed_attention(q, k, v, (24,), mixer.softmax_scale, None)
    assert counter.get_total_flops() == forward_flops(spec, [24], causal=False).attention


def test_training_is_three_forward_passes() -> None:
    assert training_flops(SPECS[0], [8, 4]) == 3 * forward_flops(SPECS[0], [8, 4]).total


@pytest.mark.parametrize("window", [None, 1, 3, 7, 20])
def test_attended_pairs_equal_the_mask(window: int | None) -> None:
    length = 9
    i = torch.arange(length)
    mask = i[:, None] >= i[None]
    if window is not None:
        mask &= i[:, None] - i[None] < window
    spec = AttentionSpec(1, 1, 2, window=window)
    assert attended_pairs(spec, length, causal=True) == int(mask.sum())
