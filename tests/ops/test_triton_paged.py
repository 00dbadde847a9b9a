"""The GPU's decode kernel against the reference: interpreted on a CPU, compiled on a GPU.

Interpreting needs Triton (``pip install triton``) and ``TRITON_INTERPRET=1`` from the start.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace

import pytest
import torch

from weft.ops import PagedLayout, ScoreRule
from weft.ops.attention import triton_paged
from weft.ops.attention.reference import paged_attention as reference
from weft.ops.registry import PAGED_ATTENTION
from weft.ops.scaled_rows import CODE_LIMITS, ScaledRows, quantize

HAS_TRITON = importlib.util.find_spec("triton") is not None
interpreted = pytest.mark.skipif(
    not HAS_TRITON or os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs Triton and TRITON_INTERPRET=1",
)
RULE = ScoreRule(0.3)
RULES = {
    "plain": RULE,
    "window": replace(RULE, window=37),
    "sinks and window": replace(RULE, window=20, num_first=4),
    "softcap": replace(RULE, softcap=3.0),
    "score sinks": replace(RULE, sinks_N=torch.tensor([0.5, -2.0, 0.0, 3.0])),
}


def step(width=16, value_width=None, num_kv_heads=2, contexts=(300, 1, 64, 257), device="cpu"):
    """Return queries, keys, values and the layout of a decode step over a shuffled cache."""
    generator = torch.Generator().manual_seed(width)
    free = torch.randperm(sum(contexts) + 20, generator=generator)
    slots_BS = torch.zeros(len(contexts), max(contexts), dtype=torch.int64)
    for row, context in enumerate(contexts):
        slots_BS[row, :context], free = free[:context], free[context:]
    shapes = ((len(contexts), 4, width), (sum(contexts) + 20, num_kv_heads, width),
              (sum(contexts) + 20, num_kv_heads, value_width or width))  # fmt: skip
    q, k, v = (torch.randn(shape, generator=generator).to(device) for shape in shapes)
    ones = (1,) * len(contexts)
    return q, k, v, PagedLayout(ones, contexts, slots_BS.to(device), decode=True)


def on(rule: ScoreRule, device: str) -> ScoreRule:
    return rule if rule.sinks_N is None else replace(rule, sinks_N=rule.sinks_N.to(device))


@interpreted
@pytest.mark.parametrize("name", RULES)
def test_interpreted_kernel_equals_the_reference(name: str) -> None:
    arguments = (*step(), RULES[name])
    torch.testing.assert_close(
        triton_paged.paged_attention(*arguments), reference(*arguments), rtol=2e-5, atol=2e-6
    )


@interpreted
@pytest.mark.parametrize(("width", "value_width", "kv_heads"), [(24, 8, 1), (80, 80, 4)])
def test_widths_and_groups_that_are_no_powers_of_two(width, value_width, kv_heads) -> None:
    arguments = (*step(width, value_width, kv_heads, contexts=(70, 3)), RULE)
    torch.testing.assert_close(
        triton_paged.paged_attention(*arguments), reference(*arguments), rtol=2e-5, atol=2e-6
    )


@interpreted
def test_interpreted_kernel_reads_codes() -> None:
    q, k, v, layout = step(contexts=(70, 9))
    k, v = (ScaledRows(*quantize(x, torch.int8)) for x in (k, v))
    torch.testing.assert_close(
        triton_paged.paged_attention(q, k, v, layout, RULE),
        reference(q, k, v, layout, RULE),
        rtol=2e-5,
        atol=2e-6,
    )


def test_the_kernel_is_for_decode_steps_on_a_gpu() -> None:
    arguments = (*step(), RULE)
    assert not triton_paged.accepts(*arguments)
    assert PAGED_ATTENTION.chosen(*arguments) != "triton"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", RULES)
def test_compiled_kernel_equals_the_reference(name: str, dtype: torch.dtype) -> None:
    q, k, v, layout = step(128, device="cuda")
    arguments = (q.to(dtype), k.to(dtype), v.to(dtype), layout, on(RULES[name], "cuda"))
    assert PAGED_ATTENTION.chosen(*arguments) == "triton"
    tolerance = PAGED_ATTENTION.tolerances[torch.float32 if dtype.itemsize == 4 else torch.bfloat16]
    torch.testing.assert_close(
        triton_paged.paged_attention(*arguments),
        reference(*arguments),
        rtol=tolerance.rtol,
        atol=tolerance.atol,
    )


@pytest.mark.gpu
@pytest.mark.parametrize("codes", list(CODE_LIMITS), ids=str)
def test_compiled_kernel_reads_codes(codes: torch.dtype) -> None:
    q, k, v, layout = step(128, device="cuda")
    k, v = (ScaledRows(*quantize(x, codes)) for x in (k, v))
    torch.testing.assert_close(
        triton_paged.paged_attention(q, k, v, layout, RULE),
        reference(q, k, v, layout, RULE),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.gpu
def test_a_row_has_the_same_bits_alone_and_in_a_batch() -> None:
    q, k, v, layout = step(64, device="cuda")
    together = triton_paged.paged_attention(q, k, v, layout, RULE)
    for row, context in enumerate(layout.context_lengths):
        slots_BS = layout.slots_BS[row : row + 1, :context]
        alone = PagedLayout((1,), (context,), slots_BS, decode=True)
        got = triton_paged.paged_attention(q[row : row + 1], k, v, alone, RULE)
        assert torch.equal(got, together[row : row + 1])
