"""Every op of the package as a ``KernelSpec``: the list that tests and benchmarks walk."""

from __future__ import annotations

from weft.ops.attention import reference as attention_reference
from weft.ops.dispatch import KernelSpec
from weft.ops.gated import reference as gated_reference
from weft.ops.loss import reference as loss_reference
from weft.ops.norm import reference as norm_reference
from weft.ops.rotary import reference as rotary_reference

RMS_NORM = KernelSpec("rms_norm", norm_reference.rms_norm)
SWIGLU = KernelSpec("swiglu", gated_reference.swiglu)
ROTARY = KernelSpec("apply_rotary", rotary_reference.apply_rotary)
PACKED_ATTENTION = KernelSpec("packed_attention", attention_reference.packed_attention)
PAGED_ATTENTION = KernelSpec("paged_attention", attention_reference.paged_attention)
LINEAR_CROSS_ENTROPY = KernelSpec("linear_cross_entropy", loss_reference.linear_cross_entropy)
LINEAR_LOG_PROBS = KernelSpec("linear_log_probs", loss_reference.linear_log_probs)

KERNELS: tuple[KernelSpec, ...] = (
    RMS_NORM,
    SWIGLU,
    ROTARY,
    PACKED_ATTENTION,
    PAGED_ATTENTION,
    LINEAR_CROSS_ENTROPY,
    LINEAR_LOG_PROBS,
)
