"""Floor 3: the numeric kernels, each with a reference that says what it computes.

- ``functional.py``  the public functions, with shapes and sources.
- ``dispatch.py``    ``KernelSpec``: an op's reference, implementations, tolerances and traffic.
- ``registry.py``    all ops in one tuple; tests hold every implementation to its reference.
- ``norm/ gated/ rotary/ attention/ loss/``  one folder per op: ``reference.py`` is plain torch
  and obviously right, the files beside it are faster.
- ``recurrent.py``   the ops that carry a state along sequences: ``linear_attention/ delta/ rwkv/
  conv/``, each token by token and by chunks; ``mamba/`` explains where state spaces meet them.
- ``scaled_rows.py``  rows of one-byte codes with a factor each, read like a plain table: quantized
  keys and values.
- ``native/``        C kernels, compiled on first use with the system's compiler and loaded with
  ctypes. Where there is no compiler the torch path runs; ``weft doctor`` says which.
- ``machine.py``     measured limits of this machine, the number of threads,
  the allocator.

Which implementation runs is decided by the tensors alone (device, type, sizes), never by a
switch; so a model's code is the same on every device.
"""

from weft.ops.attention.layout import PagedLayout
from weft.ops.attention.rule import ScoreRule
from weft.ops.functional import (
    apply_rotary,
    grouped_linear,
    linear,
    linear_cross_entropy,
    linear_log_probs,
    packed_attention,
    paged_attention,
    rms_norm,
    row_log_probs,
    swiglu,
)
from weft.ops.linear.rows import pad_rows, stable_num_rows
from weft.ops.loss.softcap import soft_cap

__all__ = [
    "PagedLayout",
    "ScoreRule",
    "apply_rotary",
    "grouped_linear",
    "linear",
    "linear_cross_entropy",
    "linear_log_probs",
    "packed_attention",
    "pad_rows",
    "paged_attention",
    "rms_norm",
    "row_log_probs",
    "soft_cap",
    "stable_num_rows",
    "swiglu",
]
