from __future__ import annotations

import pytest
import torch

from tests.ops.cases import build
from weft.ops import ScoreRule, registry, rms_norm, swiglu
from weft.ops.dispatch import Implementation, KernelSpec, needs_grad
from weft.ops.native.bindings import load_library
from weft.ops.registry import KERNELS, RMS_NORM


def test_first_implementation_that_accepts_runs():
    picky = Implementation("picky", lambda x: "picky", lambda x: x > 5)
    open_ = Implementation("open", lambda x: "open", lambda x: x > 0)
    spec = KernelSpec("op", lambda x: "reference", (picky, open_))
    assert [spec(x) for x in (9, 3, -1)] == ["picky", "open", "reference"]
    assert [spec.chosen(x) for x in (9, 3, -1)] == ["picky", "open", "reference"]


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_chosen_tells_what_runs(spec):
    case = build(spec.name, 0, torch.float32)
    names = {implementation.name for implementation in spec.implementations} | {"reference"}
    assert spec.chosen(*case.args) in names


def test_float64_and_meta_tensors_take_the_torch_path():
    for x in (torch.randn(2, 8, dtype=torch.float64), torch.randn(2, 8, device="meta")):
        weight = torch.ones(8, dtype=x.dtype, device=x.device)
        assert RMS_NORM.chosen(x, weight, 1e-6) == "reference"
        assert rms_norm(x, weight, 1e-6).shape == x.shape


@pytest.mark.skipif(load_library() is None, reason="no C compiler")
def test_plain_cpu_tensors_take_the_native_path():
    x = torch.randn(2, 8)
    assert RMS_NORM.chosen(x, torch.nn.Parameter(torch.ones(8)), 1e-6) == "native"


def test_fake_tensors_take_the_torch_path():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        assert swiglu(torch.empty(4, 10)).shape == (4, 5)


def test_needs_grad_follows_the_grad_mode():
    x = torch.ones(1, requires_grad=True)
    assert needs_grad(torch.ones(1), x)
    assert not needs_grad(torch.ones(1))
    with torch.no_grad():
        assert not needs_grad(x)


def test_traffic_and_arithmetic_are_counted():
    x = torch.zeros(10, 8)
    assert registry.RMS_NORM.num_bytes(x, torch.zeros(8), 1e-6) == (2 * 80 + 8) * 4
    q = torch.zeros(3, 2, 16)
    # Two documents of 1 and 2 tokens have 1 + 3 visible pairs, each 4 H flops per head.
    assert (
        registry.PACKED_ATTENTION.num_flops(q, q, q, (1, 2), (1, 2), ScoreRule(1.0))
        == 4 * 4 * 16 * 2
    )
