"""Number formats bit by bit against torch (row F09)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.ops.formats.float_format import (
    BFLOAT16,
    E2M1,
    E4M3,
    E5M2,
    FLOAT16,
    FLOAT32,
    FloatFormat,
    decode_e8m0,
)

INTEGERS = {16: torch.int16, 8: torch.uint8, 32: torch.int32}


def torch_value(format: FloatFormat, code: int) -> float:
    bits = torch.tensor([code], dtype=torch.int64).to(INTEGERS[format.num_bits])
    return float(bits.view(getattr(torch, format.name)).to(torch.float64))


def torch_code(format: FloatFormat, value: float) -> int:
    # By way of float32, as torch itself does; the values tested have float32's precision.
    rounded = torch.tensor([value], dtype=torch.float32).to(getattr(torch, format.name))
    return int(rounded.view(INTEGERS[format.num_bits])) & (2**format.num_bits - 1)


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or (
        a == b and math.copysign(1, a) == math.copysign(1, b)
    )


@pytest.mark.parametrize("format", [E4M3, E5M2], ids=lambda f: f.name)
def test_all_fp8_codes(format: FloatFormat) -> None:
    for code in range(256):
        value = format.decode(code)
        assert same(value, torch_value(format, code))
        if not math.isnan(value):
            assert format.encode(value) == code == torch_code(format, value)


@pytest.mark.parametrize("format", [FLOAT16, BFLOAT16], ids=lambda f: f.name)
def test_all_16_bit_codes(format: FloatFormat) -> None:
    for code in range(0, 2**16, 7):
        value = format.decode(code)
        assert same(value, torch_value(format, code))
        if not math.isnan(value):
            assert format.encode(value) == code


@pytest.mark.parametrize("format", [FLOAT16, BFLOAT16, E5M2, E4M3], ids=lambda f: f.name)
@given(st.floats(width=32))
def test_rounding_is_torch(format: FloatFormat, value: float) -> None:
    expected = torch_value(format, torch_code(format, value))
    if format is E4M3 and abs(value) > E4M3.max_value:
        # What lies beyond the range differs between torch releases: NaN or the largest value.
        assert math.isnan(format.round(value)) or math.isinf(value)
        assert format.round(value, saturate=True) == math.copysign(448.0, value)
        return
    assert same(format.round(value), expected)


def test_limits() -> None:
    assert (E4M3.max_value, E5M2.max_value, FLOAT16.max_value) == (448.0, 57344.0, 65504.0)
    assert BFLOAT16.max_value == torch.finfo(torch.bfloat16).max
    assert FLOAT32.max_value == torch.finfo(torch.float32).max
    assert E4M3.smallest_subnormal == 2**-9
    assert E4M3.bias == 7
    assert E4M3.round(1000.0, saturate=True) == 448.0
    assert math.isnan(E4M3.round(1000.0))
    assert E5M2.round(-1e6) == -math.inf


def test_fp4_has_sixteen_values() -> None:
    values = [E2M1.decode(code) for code in range(16)]
    assert values[:8] == [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    assert values[8:] == [-value for value in values[:8]]
    assert [E2M1.encode(value) for value in values[:8]] == list(range(8))
    assert E2M1.round(100.0) == 6.0


def test_block_scale_is_a_power_of_two() -> None:
    codes = torch.arange(255, dtype=torch.uint8)
    expected = codes.view(torch.float8_e8m0fnu).to(torch.float64).tolist()
    assert [decode_e8m0(code) for code in range(255)] == expected
    assert math.isnan(decode_e8m0(255))


def test_worked_values_of_fp8() -> None:
    inputs = (0.123456, 1.23456, 12.3456, 123.456)
    assert [E4M3.round(x) for x in inputs] == [0.125, 1.25, 12.0, 120.0]
    assert [E5M2.round(x) for x in inputs] == [0.125, 1.25, 12.0, 128.0]


def test_sums_depend_on_their_order() -> None:
    big, one = torch.tensor(2.0**24), torch.tensor(1.0)
    assert float((big + one) - big) == 0.0
    assert float((big - big) + one) == 1.0
    left = FLOAT32.round(FLOAT32.round(2.0**24 + 1.0) - 2.0**24)
    right = FLOAT32.round(FLOAT32.round(2.0**24 - 2.0**24) + 1.0)
    assert (left, right) == (0.0, 1.0)
