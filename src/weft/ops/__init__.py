"""Floor 3: the numeric kernels, each with a reference that says what it computes.

- ``functional.py``  the public functions, with shapes and sources.
- ``dispatch.py``    ``KernelSpec``: an op's reference, implementations, tolerances and traffic.
- ``registry.py``    all ops in one tuple; tests hold every implementation to its reference.
- ``norm/ gated/ rotary/ attention/ loss/``  one folder per op: ``reference.py`` is plain torch
  and obviously right, the files beside it are faster.
- ``native/``        C kernels, compiled on first use with the system's compiler and loaded with
  ctypes. Where there is no compiler the torch path runs; ``weft doctor`` says which.
- ``machine.py``     measured limits of this machine, the number of threads,
  the allocator.

Which implementation runs is decided by the tensors alone (device, type, sizes), never by a
switch; so a model's code is the same on every device.
"""

from weft.ops.attention.layout import PagedLayout
from weft.ops.functional import (
    apply_rotary,
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

__all__ = [
    "PagedLayout",
    "apply_rotary",
    "linear",
    "linear_cross_entropy",
    "linear_log_probs",
    "packed_attention",
    "pad_rows",
    "paged_attention",
    "rms_norm",
    "row_log_probs",
    "stable_num_rows",
    "swiglu",
]
