"""Every implementation of every op against its reference: values and all gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.ops.cases import BUILDERS, Case, build
from weft.ops.dispatch import Implementation, KernelSpec, Tolerance
from weft.ops.native.bindings import load_library
from weft.ops.registry import KERNELS

PAIRS = [
    pytest.param(spec, implementation, id=f"{spec.name}-{implementation.name}")
    for spec in KERNELS
    for implementation in spec.implementations
]
SEEDS = range(12)


def run(function, case: Case) -> list[Tensor]:
    """Return the output and the gradient of every leaf for one fixed upstream gradient."""
    for tensor in case.leaves:
        tensor.grad = None
    out = function(*case.args)
    first = out[0] if isinstance(out, tuple) else out
    results = [t.detach() for t in out] if isinstance(out, tuple) else [out.detach()]
    if case.leaves:
        generator = torch.Generator().manual_seed(1)
        first.backward(torch.randn(first.shape, generator=generator).to(first.dtype))
        results += [tensor.grad.clone() for tensor in case.leaves]
    return results


def assert_close(actual: Tensor, expected: Tensor, tolerance: Tolerance) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(
        actual, expected, rtol=tolerance.rtol, atol=tolerance.atol * max(largest, 1.0)
    )


def test_every_op_has_cases():
    assert {spec.name for spec in KERNELS} == set(BUILDERS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(("spec", "implementation"), PAIRS)
def test_equals_reference(spec: KernelSpec, implementation: Implementation, dtype: torch.dtype):
    num_run = 0
    for seed in SEEDS:
        case = build(spec.name, seed, dtype)
        if not implementation.accepts(*case.args):
            continue
        num_run += 1
        expected = run(spec.reference, case)
        actual = run(implementation.function, case)
        for got, want in zip(actual, expected, strict=True):
            assert_close(got, want, spec.tolerances[dtype])
    if implementation.name == "onednn":  # float32 and not too small
        assert (num_run > 0) == (dtype == torch.float32 and torch.backends.mkldnn.is_available())
        return
    if implementation.name in ("grouped_mm", "shapes", "triton"):  # not on a CPU; own tests
        assert num_run == 0
        return
    if implementation.name == "padded":  # many short documents; test_padded.py has more of them
        assert num_run > 0
        return
    is_native = implementation.name == "native"
    library = load_library()
    if not is_native:
        assert num_run == len(SEEDS)
    elif dtype == torch.float64 or library is None:
        assert num_run == 0, "C kernels are float32 inside and must leave float64 alone"
    elif library.wide_registers or spec.name != "packed_attention":
        assert num_run > 0


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_reference_gradients_are_those_of_finite_differences(spec: KernelSpec):
    case = build(spec.name, 3, torch.float64)
    if not case.leaves:
        pytest.skip("inference only")
    assert torch.autograd.gradcheck(lambda *_: _first(spec.reference(*case.args)), case.leaves,
                                    fast_mode=True)  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["linear_cross_entropy", "linear_log_probs"])
def test_chunked_gradients_are_those_of_finite_differences(name: str, seed: int):
    spec = next(spec for spec in KERNELS if spec.name == name)
    case = build(name, seed, torch.float64)
    function = spec.implementations[0].function
    assert torch.autograd.gradcheck(lambda *_: _first(function(*case.args)), case.leaves,
                                    fast_mode=True)  # fmt: skip


def _first(out):
    return out[0] if isinstance(out, tuple) else out


NATIVE = [pair for pair in PAIRS if pair.values[1].name == "native"]


@pytest.mark.skipif(load_library() is None, reason="no C compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("spec", "implementation"), NATIVE)
def test_native_results_do_not_depend_on_the_number_of_threads(spec, implementation, dtype):
    threads = torch.get_num_threads()
    case = next(
        case
        for seed in range(50, 100)
        if implementation.accepts(*(case := build(spec.name, seed, dtype)).args)
    )
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(run(implementation.function, case))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
