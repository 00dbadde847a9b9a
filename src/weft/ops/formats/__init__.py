"""Floating-point formats bit by bit, and why sums depend on their order.

- ``float_format.py``  ``FloatFormat``: sign, exponent and mantissa widths; encode and decode in
  plain integer arithmetic. fp32, fp16, bf16, fp8 E4M3 and E5M2, fp4 E2M1, scale E8M0.
"""
