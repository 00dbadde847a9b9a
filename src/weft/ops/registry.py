"""Every op of the package as a ``KernelSpec``: the list that tests and benchmarks walk."""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.attention import native as attention_native
from weft.ops.attention import native_packed, packed, padded, paged, triton_paged
from weft.ops.attention import reference as attention_reference
from weft.ops.attention.layout import PagedLayout
from weft.ops.attention.rule import ScoreRule
from weft.ops.dispatch import Implementation, KernelSpec, Tolerance
from weft.ops.gated import native as gated_native
from weft.ops.gated import reference as gated_reference
from weft.ops.grouped import device as grouped_device
from weft.ops.grouped import loop as grouped_loop
from weft.ops.grouped import reference as grouped_reference
from weft.ops.grouped import shapes as grouped_shapes
from weft.ops.linear import onednn
from weft.ops.linear import reference as linear_reference
from weft.ops.loss import chunked
from weft.ops.loss import reference as loss_reference
from weft.ops.norm import native as norm_native
from weft.ops.norm import reference as norm_reference
from weft.ops.recurrent import RECURRENT_KERNELS
from weft.ops.rotary import native as rotary_native
from weft.ops.rotary import reference as rotary_reference
from weft.ops.scaled_rows import Rows, ScaledRows


def _always(*_: object) -> bool:
    return True


def _traffic(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _parts(rows: Rows) -> tuple[Tensor, ...]:
    return rows.parts if isinstance(rows, ScaledRows) else (rows,)


def _paged_bytes(q: Tensor, k: Rows, v: Rows, layout: PagedLayout, *_: object) -> int:
    per_slot = sum(t[0].numel() * t.element_size() for t in (*_parts(k), *_parts(v)))
    return sum(layout.context_lengths) * per_slot + 2 * _traffic(q)


def _packed_flops(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: tuple[int, ...],
    key_lengths: tuple[int, ...],
    rule: ScoreRule,
) -> int:
    pairs = zip(lengths, key_lengths, strict=True)
    scores = sum(t * (2 * s - t + 1) // 2 if rule.causal else t * s for t, s in pairs)
    return 2 * q.shape[1] * (q.shape[2] + v.shape[2]) * scores


LINEAR = KernelSpec(
    "linear",
    linear_reference.linear,
    (Implementation("onednn", onednn.linear, onednn.accepts),),
    num_flops=lambda x, weight, bias: 2 * x.shape[0] * weight.numel(),
)
GROUPED_LINEAR = KernelSpec(
    "grouped_linear",
    grouped_reference.grouped_linear,
    (
        Implementation("grouped_mm", grouped_device.grouped_linear, grouped_device.accepts),
        Implementation("shapes", grouped_shapes.grouped_linear, grouped_shapes.accepts),
        Implementation("loop", grouped_loop.grouped_linear, grouped_loop.accepts),
    ),
    num_flops=lambda x, weight, bias, counts: 2 * x.shape[0] * weight[0].numel(),
)
RMS_NORM = KernelSpec(
    "rms_norm",
    norm_reference.rms_norm,
    (Implementation("native", norm_native.rms_norm, norm_native.accepts),),
    num_bytes=lambda x, weight, eps: 2 * _traffic(x) + _traffic(weight),
)
SWIGLU = KernelSpec(
    "swiglu",
    gated_reference.swiglu,
    (Implementation("native", gated_native.swiglu, gated_native.accepts),),
    num_bytes=lambda gate_up: 3 * _traffic(gate_up) // 2,
)
ROTARY = KernelSpec(
    "apply_rotary",
    rotary_reference.apply_rotary,
    (Implementation("native", rotary_native.apply_rotary, rotary_native.accepts),),
    num_bytes=lambda x, cos, sin, layout: 2 * _traffic(x) + _traffic(cos, sin),
)
PACKED_ATTENTION = KernelSpec(
    "packed_attention",
    attention_reference.packed_attention,
    (
        Implementation("native", native_packed.packed_attention, native_packed.accepts),
        Implementation("padded", padded.packed_attention, padded.accepts),
        Implementation("grouped", packed.packed_attention, _always),
    ),
    num_flops=_packed_flops,
)
PAGED_ATTENTION = KernelSpec(
    "paged_attention",
    attention_reference.paged_attention,
    (
        Implementation("native", attention_native.paged_attention, attention_native.accepts),
        Implementation("triton", triton_paged.paged_attention, triton_paged.accepts),
        Implementation("gathered", paged.paged_attention, _always),
    ),
    num_bytes=_paged_bytes,
)
_LOSS_TOLERANCES = {
    torch.float64: Tolerance(1e-9, 1e-10),
    torch.float32: Tolerance(5e-5, 5e-6),
    torch.bfloat16: Tolerance(2e-2, 2e-2),
}
LINEAR_CROSS_ENTROPY = KernelSpec(
    "linear_cross_entropy",
    loss_reference.linear_cross_entropy,
    (Implementation("chunked", chunked.linear_cross_entropy, _always),),
    tolerances=_LOSS_TOLERANCES,
    num_flops=lambda hidden, weight, *_: 2 * hidden.shape[0] * weight.numel(),
)
LINEAR_LOG_PROBS = KernelSpec(
    "linear_log_probs",
    loss_reference.linear_log_probs,
    (Implementation("chunked", chunked.linear_log_probs, _always),),
    tolerances=_LOSS_TOLERANCES,
    num_flops=lambda hidden, weight, *_: 2 * hidden.shape[0] * weight.numel(),
)

KERNELS: tuple[KernelSpec, ...] = (
    LINEAR,
    GROUPED_LINEAR,
    RMS_NORM,
    SWIGLU,
    ROTARY,
    PACKED_ATTENTION,
    PAGED_ATTENTION,
    LINEAR_CROSS_ENTROPY,
    LINEAR_LOG_PROBS,
    *RECURRENT_KERNELS,
)
