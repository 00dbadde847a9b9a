"""Sinks and a window over a ring of blocks, against masks over everything."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from weft.nn.context import PagedBatch, StepContext
from weft.nn.kv_cache import KVCache
from weft.nn.long_context.policy import SinkWindow
from weft.nn.long_context.reference import sink_window_attention
from weft.nn.long_context.sink_window import SOFTMAX_SPAN, keep_sinks_and_window
from weft.nn.rotary import rotary_tables
from weft.ops import PagedLayout, ScoreRule, apply_rotary
from weft.ops.native.bindings import load_library
from weft.sched.sizing import num_ring_blocks
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec, RotarySpec

BLOCK = 4
ROTARY = RotarySpec(theta=100.0)
MIXER = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16, rotary=ROTARY)
SPEC = ModelSpec("llama", 61, 32, (LayerSpec(MIXER, MLPSpec(48)),), context_length=4096)
RULE = ScoreRule(0.25)


class Sequences:
    """Random sequences, each in the blocks of its sinks and a ring."""

    def __init__(self, policy: SinkWindow, lengths: tuple[int, ...], chunk: int) -> None:
        generator = torch.Generator().manual_seed(len(lengths))
        self.policy, self.lengths, self.chunk = policy, lengths, chunk
        self.qkv = [
            [torch.randn(length, heads, 16, generator=generator) for heads in (4, 2, 2)]
            for length in lengths
        ]
        first = -(-policy.num_sinks // BLOCK)
        ring = num_ring_blocks(policy.window, chunk, BLOCK)
        order = torch.randperm(len(lengths) * (first + ring), generator=generator)
        self.num_blocks = len(order)
        self.slots = []
        for blocks, length in zip(order.view(len(lengths), -1), lengths, strict=True):
            places = torch.arange(length)
            index = places // BLOCK
            index = torch.where(index < first, index, first + (index - first) % ring)
            self.slots.append(blocks[index] * BLOCK + places % BLOCK)

    def run(self, *, rotate: bool = False, codes: torch.dtype | None = None) -> list[Tensor]:
        """Feed all sequences in chunks, the last two tokens of each one by one."""
        cache = KVCache(
            SPEC, num_blocks=self.num_blocks, block_size=BLOCK, policy=self.policy, codes=codes
        )
        done, outputs = [0] * len(self.lengths), [[] for _ in self.lengths]
        while any(left := [n - d for n, d in zip(self.lengths, done, strict=True)]):
            rows = [row for row, count in enumerate(left) if count]
            sizes = [1 if left[row] <= 2 else min(self.chunk, left[row] - 2) for row in rows]
            spans = [
                (row, done[row], done[row] + size) for row, size in zip(rows, sizes, strict=True)
            ]
            parts = self._step(cache, spans, rotate).split(sizes)
            for (row, _, stop), part in zip(spans, parts, strict=True):
                outputs[row].append(part)
                done[row] = stop
        return [torch.cat(parts) for parts in outputs]

    def _step(self, cache: KVCache, spans: list[tuple[int, int, int]], rotate: bool) -> Tensor:
        contexts = tuple(stop for _, _, stop in spans)
        slots_BS = torch.zeros(len(spans), max(contexts), dtype=torch.int64)
        for index, (row, _, stop) in enumerate(spans):
            slots_BS[index, :stop] = self.slots[row][:stop]
        lengths = tuple(stop - start for _, start, stop in spans)
        positions_T = torch.cat([torch.arange(start, stop) for _, start, stop in spans])
        slots_T = torch.cat([self.slots[row][start:stop] for row, start, stop in spans])
        layout = PagedLayout(lengths, contexts, slots_BS, decode=max(lengths) == 1)
        context = StepContext.paged(cache, PagedBatch(positions_T, slots_T, layout))
        q, k, v = (
            torch.cat([self.qkv[row][part][start:stop] for row, start, stop in spans])
            for part in range(3)
        )
        if rotate:
            tables = context.rotary(ROTARY, 16)
            q, k = (apply_rotary(x, *tables, "half") for x in (q, k))
        return context.attend(0, q, k, v, RULE)


@pytest.mark.parametrize("chunk", [1, 3, 8, 50])
@pytest.mark.parametrize(("sinks", "window"), [(4, 6), (1, 1), (0, 5), (6, 9), (3, 200)])
def test_sink_window_equals_masked_reference(sinks: int, window: int, chunk: int) -> None:
    sequences = Sequences(SinkWindow(sinks, window), (170, 5, 33), chunk)
    for actual, qkv in zip(sequences.run(), sequences.qkv, strict=True):
        expected = sink_window_attention(*qkv, RULE, sequences.policy)
        torch.testing.assert_close(actual, expected, rtol=2e-5, atol=2e-6)


def test_reference_sees_the_first_tokens_and_the_last() -> None:
    values = torch.eye(7).unsqueeze(1)
    seen = sink_window_attention(
        torch.zeros(7, 1, 4), torch.zeros(7, 1, 4), values, RULE, SinkWindow(1, 2)
    )
    expected = [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5], [0, 5, 6]]
    assert [row.nonzero().flatten().tolist() for row in seen[:, 0]] == expected


def in_the_cache(qkv: list[Tensor], policy: SinkWindow) -> Tensor:
    """Rotate by places in the cache, token by token, as the paper does."""
    q, k, v = qkv
    outputs = []
    for token in range(len(q)):
        sinks = range(min(policy.num_sinks, token + 1))
        recent = range(max(policy.num_sinks, token - policy.window + 1), token + 1)
        kept = [*sinks, *recent]
        tables = rotary_tables(ROTARY, 16, torch.arange(len(kept)))
        keys = apply_rotary(k[kept], *tables, "half")
        query = apply_rotary(q[token : token + 1], *(t[-1:] for t in tables), "half")
        scores = torch.einsum("qgnh,kgh->gnqk", query.unflatten(1, (2, 2)), keys) * RULE.scale
        mixed = torch.einsum("gnqk,kgh->qgnh", scores.softmax(-1), v[kept])
        outputs.append(mixed.flatten(1, 2))
    return torch.cat(outputs)


@pytest.mark.parametrize("chunk", [1, 5, 50])
@pytest.mark.parametrize(("sinks", "window"), [(4, 6), (2, 1), (0, 5), (3, 200)])
def test_positions_in_the_cache_are_those_of_the_paper(sinks: int, window: int, chunk: int) -> None:
    sequences = Sequences(SinkWindow(sinks, window, positions="cache"), (160, 5, 33), chunk)
    for actual, qkv in zip(sequences.run(rotate=True), sequences.qkv, strict=True):
        expected = in_the_cache(qkv, sequences.policy)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5)


def test_positions_in_the_text_and_in_the_cache_differ_once_something_is_evicted() -> None:
    inside, outside = (
        Sequences(SinkWindow(2, 6, positions=positions), (30,), 5).run(rotate=True)[0]
        for positions in ("cache", "absolute")
    )
    torch.testing.assert_close(inside[:8], outside[:8])
    assert (inside[9:] - outside[9:]).abs().max() > 1e-3


def test_quantized_rings_have_the_same_numbers_in_any_chunk() -> None:
    policy = SinkWindow(4, 6)
    whole = Sequences(policy, (40,), 50).run(codes=torch.int8)[0]
    for chunk in (1, 7):
        actual = Sequences(policy, (40,), chunk).run(codes=torch.int8)[0]
        torch.testing.assert_close(actual, whole, rtol=2e-5, atol=2e-6)


def test_step_reads_little_more_than_sinks_window_and_chunk() -> None:
    policy = SinkWindow(4, 16)
    for length in (100, 1000, 4000):
        layout = PagedLayout((3,), (length,), torch.arange(length)[None], decode=False)
        kept = keep_sinks_and_window(layout, policy)
        (num_kept,) = kept.context_lengths
        assert 4 + 15 + 3 <= num_kept < 4 + 15 + 3 + SOFTMAX_SPAN
        assert (length - num_kept) % SOFTMAX_SPAN == 0
        expected = [*range(4), *range(length - num_kept + 4, length)]
        assert kept.slots_BS.tolist() == [expected]


@pytest.mark.skipif(load_library() is None, reason="no C compiler")
def test_a_token_has_the_same_bits_in_any_chunk() -> None:
    whole = Sequences(SinkWindow(4, 30), (300,), 300).run()[0]
    for chunk in (1, 7, 64):
        assert torch.equal(Sequences(SinkWindow(4, 30), (300,), chunk).run()[0], whole)


def test_padding_names_a_slot_of_its_own_sequence() -> None:
    layout = PagedLayout((1, 1), (5, 80), torch.arange(160).view(2, 80), decode=True)
    kept = keep_sinks_and_window(layout, SinkWindow(2, 8))
    assert kept.context_lengths == (5, 16)
    assert set(kept.slots_BS[0].tolist()) == set(range(5))
