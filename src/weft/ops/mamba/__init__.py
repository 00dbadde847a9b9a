"""State-space models: what Mamba adds to linear attention is where decay and input come from.

- ``discretise.py``  zero-order hold: continuous rates and step sizes to decays and inputs.
- ``selective.py``   the selective scan of Mamba and its special case S4D, which is a convolution.
- ``sequences.py``   Mamba's recurrence for many sequences: steps, or scans of chunks.

Mamba-2's recurrence itself is ``weft.ops.linear_attention`` with one decay per head: queries C,
keys B, values the inputs times their step (state-space duality, arXiv:2405.21060).
"""
