"""Worked values of affine quantization, error bounds, and whole models."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.quant.affine import (
    AffineScheme,
    dequantize,
    dequantize_weight,
    quantize,
    quantize_weight,
)
from weft.quant.linear import quantize_model
from weft.spec import ModelShape


@pytest.mark.parametrize(
    ("x", "integer", "error"),
    [(127.9, 127, 115.2), (255.5, 127, 242.8), (-300.0, -128, 287.2), (1.234, 12, 0.034)],
)
def test_int8_with_scale_a_tenth(x: float, integer: int, error: float) -> None:
    q = quantize(torch.tensor(x), 0.1, 0.0, AffineScheme(8))
    assert q.item() == integer
    assert abs(dequantize(q, 0.1, 0.0).item() - x) == pytest.approx(error, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.sampled_from([None, 4, 8]), st.booleans(), st.integers(0, 2**31 - 1))
def test_error_is_at_most_half_a_scale(bits: int, group: int, symmetric: bool, seed: int) -> None:
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(seed))
    quantized = quantize_weight(weight, AffineScheme(bits, group, symmetric))
    error = (dequantize_weight(quantized) - weight).abs()
    scales = quantized.scales_OG.repeat_interleave(16 // quantized.scales_OG.shape[1], 1)
    # The asymmetric zero point is rounded too, which can cost another half step at the ends.
    assert (error <= scales * (0.5 if symmetric else 1.0) + 1e-6).all()


def test_a_row_of_zeros_stays_zero() -> None:
    for symmetric in (True, False):
        quantized = quantize_weight(torch.zeros(2, 8), AffineScheme(4, 4, symmetric))
        assert (dequantize_weight(quantized) == 0).all()


def test_more_bits_are_closer_to_the_model() -> None:
    tokens = torch.arange(20)

    def scores(bits: int | None) -> torch.Tensor:
        model = Decoder(ModelShape(dim=64, num_layers=2).build(50), seed=4)
        if bits is not None:
            assert len(quantize_model(model, AffineScheme(bits, 32))) == 8
        with torch.inference_mode():
            return heads.logits(model, model(tokens, StepContext.packed([20])))

    exact = scores(None)
    relative = [((scores(bits) - exact).norm() / exact.norm()).item() for bits in (8, 4, 2)]
    assert relative[0] < relative[1] < relative[2]
    # Int8 with the scale max / 127 errs by about max / 440 against weights of about max / 2:
    # half a percent for each of the eight products.
    assert relative[0] < 8 * 0.005


def test_impossible_schemes_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not divide"):
        quantize_weight(torch.zeros(2, 10), AffineScheme(8, 4))
    with pytest.raises(ConfigError, match="9 bits"):
        AffineScheme(9)
