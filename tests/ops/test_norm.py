import pytest
import torch

from weft.ops import rms_norm
from weft.ops.norm.reference import rms_norm as reference


def weight_before_rounding(x, weight, eps):
    """The other order: multiply by the weight in float32, round once at the end."""
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (normed * weight.float()).to(x.dtype)


def test_order_of_rounding_shows_in_bfloat16_by_one_step():
    torch.manual_seed(0)
    x, weight = torch.randn(64, 256).bfloat16(), (torch.rand(256) + 0.5).bfloat16()
    ours, other = reference(x, weight, 1e-6), weight_before_rounding(x, weight, 1e-6)
    differs = ours != other
    assert 0.05 < differs.float().mean() < 0.6
    relative = (ours.float() - other.float()).abs() / other.float().abs().clamp_min(1e-6)
    assert relative.max() <= 2**-7


def test_squares_are_added_in_float32():
    x = torch.full((1, 4096), 0.01).bfloat16()
    out = rms_norm(x, torch.ones(4096).bfloat16(), 0.0)
    assert torch.equal(out, torch.ones_like(x))


def test_last_bit_agrees_with_reference_in_bfloat16_but_for_ties():
    torch.manual_seed(1)
    x, weight = torch.randn(100, 512).bfloat16(), torch.randn(512).bfloat16()
    same = rms_norm(x, weight, 1e-6) == reference(x, weight, 1e-6)
    assert same.float().mean() > 0.999


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_numbers_stay_in_their_row(bad):
    x = torch.ones(3, 64)
    x[1, 7] = bad
    out = rms_norm(x, torch.ones(64), 1e-6)
    assert out[1, 7].isnan()
    assert out[[0, 2]].isfinite().all()


def test_result_has_the_input_type_under_float32_weights():
    x, weight = torch.randn(4, 32).bfloat16(), torch.rand(32)
    out = rms_norm(x, weight, 1e-6)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, reference(x, weight, 1e-6), rtol=1e-2, atol=1e-2)


def test_frozen_weight_and_frozen_input_get_no_gradient():
    x, weight = torch.randn(4, 32, requires_grad=True), torch.ones(32)
    rms_norm(x, weight, 1e-6).sum().backward()
    assert x.grad is not None
    assert weight.grad is None


@pytest.mark.parity
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reference_matches_hugging_face_bit_for_bit(dtype):
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    torch.manual_seed(2)
    module = LlamaRMSNorm(256, eps=1e-5).to(dtype)
    module.weight.data.normal_()
    x = torch.randn(50, 256).to(dtype)
    assert torch.equal(reference(x, module.weight, 1e-5), module(x))
