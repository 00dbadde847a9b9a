"""Floor 6: fewer bits per number.

- ``affine.py``  affine integers, symmetric or not, per row and group: the reference arithmetic.
- ``linear.py``  ``QuantizedLinear`` and ``quantize_model``: round-to-nearest weight-only int8/int4,
  applied from outside by name pattern.
"""
