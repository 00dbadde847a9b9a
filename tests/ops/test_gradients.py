"""Finite differences against every autograd function written by hand (row F03)."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

import weft.nn
import weft.ops
from weft.ops import (
    ScoreRule,
    apply_rotary,
    grouped_linear,
    linear,
    linear_cross_entropy,
    linear_log_probs,
    packed_attention,
    rms_norm,
    swiglu,
)
from weft.ops.gradients import gradient_error, numerical_jacobian
from weft.ops.grouped.order import expert_order
from weft.ops.grouped.permute import combine_by_token, rows_by_expert
from weft.ops.linear import onednn
from weft.ops.native.bindings import load_library

# The C kernels compute in float32: the best step is 1e-2, the error about 1e-3.
STEP, TOLERANCE = 1e-2, 5e-3


def tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def rotary(x_TNH: Tensor) -> Tensor:
    angles_TR = torch.arange(12.0).view(3, 4)
    return apply_rotary(x_TNH, angles_TR.cos(), angles_TR.sin(), "half")


LABELS = torch.tensor([1, -100, 4, 0])
TARGETS = torch.tensor([1, 2, 4, 0])
# Three tokens with two experts each of three; the last choice was left out.
ORDER = expert_order(torch.tensor([0, 2, 2, 1, 0, 3]), 3)
Case = tuple[str, Callable[..., Tensor], Sequence[Tensor]]
CASES: list[Case] = [
    ("weft.ops.norm.native._RMSNorm", lambda x, w: rms_norm(x, w, 1e-6), tensors((3, 16), (16,))),
    ("weft.ops.gated.native._SwiGLU", swiglu, tensors((2, 32))),
    ("weft.ops.rotary.native._Rotary", rotary, tensors((3, 2, 8))),
    ("weft.ops.linear.onednn._Linear", linear, tensors((4, 8), (6, 8), (6,))),
    (
        "weft.ops.grouped.loop._GroupedLinear",
        lambda x, w, b: grouped_linear(x, w, b, torch.tensor([2, 0, 3])),
        tensors((5, 4), (3, 6, 4), (3, 6)),
    ),
    ("weft.ops.grouped.permute._Spread", lambda x: rows_by_expert(x, ORDER, 5), tensors((3, 4))),
    (
        "weft.ops.grouped.permute._Permute",
        lambda y, w: combine_by_token(y, ORDER, w),
        tensors((5, 4), (3, 2)),
    ),
    (
        "weft.ops.attention.native_packed._Packed",
        lambda q, k, v: packed_attention(q, k, v, (3, 2), ScoreRule(0.5, window=2)),
        tensors((5, 2, 16), (5, 1, 16), (5, 1, 16)),
    ),
    (
        "weft.ops.loss.chunked._CrossEntropy",
        lambda h, w: linear_cross_entropy(h, w, LABELS, chunk_size=3)[0],
        tensors((4, 8), (5, 8)),
    ),
    (
        "weft.ops.loss.chunked._LogProbs",
        lambda h, w: linear_log_probs(h, w, TARGETS, temperature=0.7, chunk_size=3),
        tensors((4, 8), (5, 8)),
    ),
    (
        "weft.ops.loss.chunked._CrossEntropy",
        lambda h, w: linear_cross_entropy(h, w, LABELS, chunk_size=3, softcap=2.0)[0],
        tensors((4, 8), (5, 8)),
    ),
    (
        "weft.ops.loss.chunked._LogProbs",
        lambda h, w: linear_log_probs(h, w, TARGETS, temperature=0.7, chunk_size=4, softcap=2.0),
        tensors((4, 8), (5, 8)),
    ),
]


def written_by_hand() -> set[str]:
    """Names of all autograd functions in the packages that have kernels."""
    for package in (weft.ops, weft.nn):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(".triton_kernels"):  # needs Triton, which CPUs lack
                importlib.import_module(module.name)
    functions = torch.autograd.Function.__subclasses__()
    return {f"{f.__module__}.{f.__name__}" for f in functions if f.__module__.startswith("weft.")}


def graph_names(output: Tensor) -> Iterator[str]:
    stack = [output.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None:
            yield node.name()
            stack += [parent for parent, _ in node.next_functions]


def test_every_function_has_a_case() -> None:
    assert {name for name, _, _ in CASES} == written_by_hand()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].rpartition(".")[2])
def test_gradient_is_the_finite_difference(case: Case) -> None:
    name, function, inputs = case
    if ".native" in name and load_library() is None:
        pytest.skip("no C compiler")
    if ".onednn" in name and not onednn.available():
        pytest.skip("no oneDNN")
    used = set(graph_names(function(*inputs)))
    assert any(name.rpartition(".")[2] in node for node in used), f"{name} did not run: {used}"
    assert gradient_error(function, inputs, step=STEP) < TOLERANCE


def test_a_wrong_gradient_is_found() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
            return x * x

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
            return grad

    x = torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert gradient_error(Wrong.apply, [x]) == pytest.approx(5.0, abs=1e-6)


def test_jacobian_of_a_linear_map_is_its_matrix() -> None:
    matrix = torch.randn(3, 4, dtype=torch.float64)
    x = torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(numerical_jacobian(lambda v: matrix @ v, [x], 0), matrix)
