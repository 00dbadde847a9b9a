"""Normalisation: what the kinds have in common, where they round."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from weft.nn.norm import GroupNorm, LayerNorm, RMSNorm, build_norm
from weft.spec import NormSpec

DIM, EPS = 96, 1e-6


def inputs(dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3.0 * torch.randn(40, DIM, generator=generator) + 0.5).to(dtype)


def filled(norm: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in norm.parameters():
            values = torch.empty(parameter.shape).normal_(0.3, 0.4, generator=generator)
            parameter.copy_(values)
    return norm


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_is_that_of_torch(bias: bool) -> None:
    ours = filled(build_norm(DIM, NormSpec(EPS, kind="layer", bias=bias)))
    theirs = torch.nn.LayerNorm(DIM, EPS, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(inputs()), theirs(inputs()))


def test_rms_norm_is_that_of_torch() -> None:
    ours = filled(build_norm(DIM, NormSpec(EPS)))
    theirs = torch.nn.RMSNorm(DIM, EPS)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(inputs()), theirs(inputs()))


def test_rms_norm_is_layer_norm_where_the_mean_is_zero() -> None:
    x = inputs()
    x = x - x.mean(-1, keepdim=True)
    rms, layer = RMSNorm(DIM, EPS), LayerNorm(DIM, EPS, bias=False)
    torch.testing.assert_close(rms(x), layer(x))


def test_layer_norm_is_group_norm_of_one_group_and_batch_norm_of_the_transpose() -> None:
    x = inputs()
    layer = LayerNorm(DIM, EPS)(x)
    torch.testing.assert_close(F.group_norm(x, 1, eps=EPS), layer)
    torch.testing.assert_close(F.batch_norm(x.T, None, None, training=True, eps=EPS).T, layer)


def test_group_norm_is_layer_norm_of_every_group() -> None:
    ours, theirs = filled(GroupNorm(DIM, 4, EPS)), torch.nn.GroupNorm(4, DIM, EPS)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(inputs()), theirs(inputs()))
    parts = LayerNorm(DIM // 4, EPS)(inputs().unflatten(-1, (4, -1)))
    torch.testing.assert_close(GroupNorm(DIM, 4, EPS)(inputs()), parts.flatten(1))


def test_batch_norm_lets_samples_see_each_other_and_layer_norm_does_not() -> None:
    x, changed = inputs(), inputs()
    changed[1:] *= 2.0
    assert torch.equal(LayerNorm(DIM, EPS)(x)[0], LayerNorm(DIM, EPS)(changed)[0])
    one, other = (F.batch_norm(t, None, None, training=True) for t in (x, changed))
    assert not torch.allclose(one[0], other[0])


def test_a_zero_centred_weight_is_its_distance_from_one() -> None:
    plain = filled(build_norm(DIM, NormSpec(EPS, float32_weight=True)))
    centred = build_norm(DIM, NormSpec(EPS, zero_centred=True, float32_weight=True))
    fresh = build_norm(DIM, NormSpec(EPS))
    torch.testing.assert_close(centred(inputs()), fresh(inputs()))
    with torch.no_grad():
        centred.weight.copy_(plain.weight - 1.0)
    torch.testing.assert_close(centred(inputs()), plain(inputs()))


def test_statistics_are_taken_in_float32() -> None:
    """In bfloat16 the sum of 4096 squares would stop growing at 256."""
    x = torch.ones(1, 4096, dtype=torch.bfloat16)
    for norm in (RMSNorm(4096, EPS), RMSNorm(4096, EPS, float32_weight=True)):
        assert torch.equal(norm.to(torch.bfloat16)(x), x)


def test_the_two_orders_of_rounding_differ_in_bfloat16_only() -> None:
    first, last = RMSNorm(DIM, EPS), RMSNorm(DIM, EPS, float32_weight=True)
    for norm in (first, last):
        filled(norm)
    torch.testing.assert_close(first(inputs()), last(inputs()))
    x = inputs(torch.bfloat16)
    one, other = (norm.to(torch.bfloat16)(x) for norm in (first, last))
    assert 0.05 < (one != other).float().mean().item() < 0.9
    torch.testing.assert_close(one, other, rtol=2**-7, atol=0)


THEIRS = {
    "llama": ("llama", "LlamaRMSNorm", NormSpec(EPS)),
    "qwen3": ("qwen3", "Qwen3RMSNorm", NormSpec(EPS)),
    "gemma2": ("gemma2", "Gemma2RMSNorm", NormSpec(EPS, zero_centred=True, float32_weight=True)),
    "gemma3": ("gemma3", "Gemma3RMSNorm", NormSpec(EPS, zero_centred=True, float32_weight=True)),
    "olmo2": ("olmo2", "Olmo2RMSNorm", NormSpec(EPS, float32_weight=True)),
    "gpt_oss": ("gpt_oss", "GptOssRMSNorm", NormSpec(EPS, float32_weight=True)),
}


@pytest.mark.parity
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", sorted(THEIRS))
def test_every_familys_rounding_is_followed_bit_for_bit_in_bfloat16(
    name: str, dtype: torch.dtype
) -> None:
    import importlib

    pytest.importorskip("transformers")
    package, class_name, spec = THEIRS[name]
    module = importlib.import_module(f"transformers.models.{package}.modeling_{package}")
    theirs = getattr(module, class_name)(DIM, eps=EPS)
    ours = filled(build_norm(DIM, spec))
    theirs.load_state_dict(ours.state_dict())
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    for seed in range(5):
        x = inputs(dtype, seed)
        with torch.no_grad():
            actual, expected = ours(x), theirs(x)
        if dtype == torch.bfloat16:
            assert torch.equal(actual, expected)
        else:  # finer types also show the order in which the squares were added
            rtol = 4 * torch.finfo(dtype).eps
            torch.testing.assert_close(actual, expected, rtol=rtol, atol=3e-7)
