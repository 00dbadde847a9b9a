"""The kernels a model is made of, as FLOPs, bytes and shapes, before any device is chosen.

One kind of record holds them all, so that a model is a flat list: a report is a fold over it and
a search is arithmetic on it. A matrix product keeps its shape because small ones reach less of a
device's peak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

OpKind = Literal["gemm", "attention", "elementwise"]

# Bytes per number as it lies in memory; four-bit formats carry a scale per 16 numbers.
ELEMENT_BYTES = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "float16": 2.0,
    "float8": 1.0,
    "int8": 1.0,
    "float4": 0.5625,
    "int4": 0.5625,
}


@dataclass(frozen=True)
class Op:
    """One kernel, ``count`` times.

    Attributes:
        name: What it computes, such as "qkv".
        kind: Which cost model applies.
        flops: Of one execution; a multiply-add counts two.
        memory_bytes: Of one execution: weights, inputs and outputs, each moved once.
        dtype: Element type of the multiplication.
        shape: Rows, inner width and columns of a matrix product.
        groups: Independent products in one kernel (experts).
        count: Executions.
        weights: Numbers of trained weights one execution reads; what a backward pass has
            gradients for.
    """

    name: str
    kind: OpKind
    flops: float
    memory_bytes: float
    dtype: str = "bfloat16"
    shape: tuple[float, float, float] = (0.0, 0.0, 0.0)
    groups: float = 1.0
    count: int = 1
    weights: float = 0.0

    def times(self, count: int) -> Op:
        """Return the op executed ``count`` times as often."""
        return replace(self, count=self.count * count)

    @property
    def total_flops(self) -> float:
        return self.flops * self.count

    @property
    def total_bytes(self) -> float:
        return self.memory_bytes * self.count


def gemm(
    name: str,
    rows: float,
    inner: float,
    columns: float,
    *,
    dtype: str = "bfloat16",
    weight_dtype: str | None = None,
    activation_bytes: float = 2.0,
    groups: float = 1.0,
) -> Op:
    """Return a product of activations [rows, inner] with weights [inner, columns].

    Args:
        name: What it computes.
        rows: Tokens, over all groups.
        inner: Contracted width.
        columns: Output width.
        dtype: Element type of the multiplication.
        weight_dtype: Element type of the weights in memory; none means ``dtype``.
        activation_bytes: Bytes per number of input and output.
        groups: Weight matrices read (experts with at least one token).
    """
    weights = inner * columns * groups
    moved = weights * ELEMENT_BYTES[weight_dtype or dtype]
    moved += rows * (inner + columns) * activation_bytes
    return Op(
        name,
        "gemm",
        flops=2.0 * rows * inner * columns,
        memory_bytes=moved,
        dtype=dtype,
        shape=(rows / max(groups, 1.0), inner, columns),
        groups=groups,
        weights=weights,
    )


def attention(
    name: str,
    *,
    pairs: float,
    num_heads: float,
    qk_dim: float,
    v_dim: float,
    query_tokens: float,
    kv_bytes: float,
) -> Op:
    """Return fused softmax attention.

    Args:
        name: What it computes.
        pairs: (query, key) pairs per head.
        num_heads: Query heads.
        qk_dim: Width of queries and keys.
        v_dim: Width of values.
        query_tokens: Tokens that ask.
        kv_bytes: Bytes of keys and values read.
    """
    moved = query_tokens * num_heads * (qk_dim + v_dim) * 2.0 + kv_bytes
    return Op(
        name,
        "attention",
        flops=2.0 * pairs * num_heads * (qk_dim + v_dim),
        memory_bytes=moved,
        shape=(query_tokens, qk_dim, num_heads),
    )


def elementwise(name: str, memory_bytes: float, *, flops: float = 0.0) -> Op:
    """Return a kernel that only moves numbers: norms, rotations, activations, residual sums."""
    return Op(name, "elementwise", flops=flops, memory_bytes=memory_bytes)
