"""Number formats in plain Python: what the bits of a floating-point number say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FloatFormat:
    """A binary floating-point format.

    A code is sign, exponent, mantissa from the highest bit down. Exponent 0 holds zero and the
    subnormals. Values round to the nearest code, ties to the even one.

    Attributes:
        name: What torch calls it.
        exponent_bits: Width of the exponent.
        mantissa_bits: Digits behind the leading one.
        specials: What the largest exponent holds. "ieee": infinities and NaN. "nan_only": numbers,
            but for the code of all ones, which is NaN (E4M3FN). "none": numbers (E2M1).
        signed: Whether there is a sign bit.

    >>> E4M3.max_value, E5M2.max_value, BFLOAT16.bias
    (448.0, 57344.0, 127)
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    specials: Literal["ieee", "nan_only", "none"] = "ieee"
    signed: bool = True

    @property
    def num_bits(self) -> int:
        """Width of a code."""
        return self.signed + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        """What is subtracted from the stored exponent."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def max_value(self) -> float:
        """The largest finite value."""
        return max(v for v in (self.decode(c) for c in self._top_codes()) if math.isfinite(v))

    @property
    def smallest_normal(self) -> float:
        """The smallest positive value with a leading one."""
        return 2.0 ** (1 - self.bias)

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive value."""
        return 2.0 ** (1 - self.bias - self.mantissa_bits)

    def fields(self, code: int) -> tuple[int, int, int]:
        """Split a code into sign, stored exponent and mantissa."""
        mantissa = code & (2**self.mantissa_bits - 1)
        exponent = (code >> self.mantissa_bits) & (2**self.exponent_bits - 1)
        sign = code >> (self.mantissa_bits + self.exponent_bits) if self.signed else 0
        return sign, exponent, mantissa

    def decode(self, code: int) -> float:
        """Return the value of a code."""
        sign, exponent, mantissa = self.fields(code)
        factor = -1.0 if sign else 1.0
        if exponent == 2**self.exponent_bits - 1:
            if self.specials == "ieee":
                return math.nan if mantissa else factor * math.inf
            if self.specials == "nan_only" and mantissa == 2**self.mantissa_bits - 1:
                return math.nan
        fraction = mantissa / 2**self.mantissa_bits
        if exponent == 0:
            return factor * fraction * self.smallest_normal
        return factor * (1.0 + fraction) * 2.0 ** (exponent - self.bias)

    def encode(self, value: float, *, saturate: bool = False) -> int:
        """Return the code nearest to a value, ties to the even code.

        Args:
            value: Any float.
            saturate: Give the largest finite code to values beyond it; otherwise they become
                infinity or, where the format has none, NaN (the largest value if it has neither).
        """
        sign = math.copysign(1.0, value) < 0 and self.signed
        code = self._encode_magnitude(abs(value), saturate)
        return code | (int(sign) << (self.num_bits - 1))

    def round(self, value: float, *, saturate: bool = False) -> float:
        """Return the nearest value the format can hold."""
        return self.decode(self.encode(value, saturate=saturate))

    def _encode_magnitude(self, value: float, saturate: bool) -> int:
        if math.isnan(value):
            return self._nan_code
        if value == 0.0:
            return 0
        exponent = max(math.frexp(value)[1] - 1, 1 - self.bias) if math.isfinite(value) else 0
        step = 2.0 ** (exponent - self.mantissa_bits)
        # Python rounds halves to even. A carry into the next exponent comes out right, because
        # codes of neighbouring values are neighbouring integers.
        num_steps = round(value / step) if math.isfinite(value) else 0
        leading = (exponent + self.bias - 1) << self.mantissa_bits
        code = leading + num_steps if math.isfinite(value) else self._max_code + 1
        if code <= self._max_code:
            return code
        return self._max_code if saturate or self.specials == "none" else self._overflow_code

    @property
    def _max_code(self) -> int:
        ones = 2 ** (self.exponent_bits + self.mantissa_bits) - 1
        if self.specials == "none":
            return ones
        return ones - (1 if self.specials == "nan_only" else 2**self.mantissa_bits)

    @property
    def _overflow_code(self) -> int:
        return self._max_code + 1

    @property
    def _nan_code(self) -> int:
        ones = 2 ** (self.exponent_bits + self.mantissa_bits) - 1
        return ones - (2 ** (self.mantissa_bits - 1) - 1 if self.specials == "ieee" else 0)

    def _top_codes(self) -> range:
        return range(self._max_code, self._max_code + 1)


FLOAT32 = FloatFormat("float32", 8, 23)
FLOAT16 = FloatFormat("float16", 5, 10)
BFLOAT16 = FloatFormat("bfloat16", 8, 7)
E4M3 = FloatFormat("float8_e4m3fn", 4, 3, "nan_only")
E5M2 = FloatFormat("float8_e5m2", 5, 2)
E2M1 = FloatFormat("float4_e2m1fn", 2, 1, "none")


def decode_e8m0(code: int) -> float:
    """Return the power of two of a block scale (OCP Microscaling 1.0): 2^(code - 127)."""
    return math.nan if code == 255 else 2.0 ** (code - 127)
