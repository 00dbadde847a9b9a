"""Properties of both attention ops that no comparison with a reference shows."""

from __future__ import annotations

import random

import pytest
import torch

from weft.ops import PagedLayout, ScoreRule, packed_attention, paged_attention
from weft.ops.attention.packed import Run, equal_runs
from weft.ops.attention.reference import dense_attention
from weft.ops.attention.rule import distances
from weft.ops.native.bindings import load_library
from weft.ops.registry import PACKED_ATTENTION

H = 32
needs_native = pytest.mark.skipif(load_library() is None, reason="no C compiler")
needs_wide_registers = pytest.mark.skipif(
    (library := load_library()) is None or not library.wide_registers,
    reason="no C compiler or no AVX-512: torch attends in training",
)


def random_heads(tokens, q_heads=4, kv_heads=2, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(tokens, n, H) for n in (q_heads, kv_heads, kv_heads)]


def test_packed_documents_of_8_and_7_equal_dense_attention_on_each():
    q, k, v = random_heads(15)
    out = packed_attention(q, k, v, (8, 7), ScoreRule(H**-0.5))
    for part in (slice(0, 8), slice(8, 15)):
        expected = torch.nn.functional.scaled_dot_product_attention(
            *(t[part].transpose(0, 1) for t in (q, k, v)), is_causal=True, enable_gqa=True
        ).transpose(0, 1)
        torch.testing.assert_close(out[part], expected)


@pytest.mark.parametrize("lengths", [(10, 10), (4, 16), (130, 3)])
def test_a_document_never_sees_another(lengths):
    q, k, v = random_heads(sum(lengths))
    before = packed_attention(q, k, v, lengths, ScoreRule(0.3))
    k[lengths[0] :], v[lengths[0] :] = 100.0, float("nan")
    after = packed_attention(q, k, v, lengths, ScoreRule(0.3))
    assert torch.equal(before[: lengths[0]], after[: lengths[0]])


def test_first_token_returns_its_own_value():
    q, k, v = random_heads(9)
    out = packed_attention(q, k, v, (4, 5), ScoreRule(1.0))
    for start in (0, 4):
        torch.testing.assert_close(out[start], v[start].repeat_interleave(2, 0))


def test_window_of_one_returns_the_values():
    q, k, v = random_heads(100)
    out = packed_attention(q, k, v, (70, 30), ScoreRule(1.0, 1))
    torch.testing.assert_close(out, v.repeat_interleave(2, 1))


def test_huge_scores_do_not_overflow():
    q, k, v = random_heads(80)
    out = packed_attention(q * 1e4, k * 1e4, v, (80,), ScoreRule(1.0))
    assert out.isfinite().all()
    torch.testing.assert_close(out, dense_attention(q * 1e4, k * 1e4, v, ScoreRule(1.0)))


def test_empty_documents_and_batches_are_allowed():
    q, k, v = random_heads(5)
    assert packed_attention(q, k, v, (0, 5, 0), ScoreRule(1.0)).shape == q.shape
    assert packed_attention(q[:0], k[:0], v[:0], (0,), ScoreRule(1.0)).shape == (0, 4, H)


def test_runs_keep_the_order_of_documents():
    assert equal_runs([3, 3, 5, 3], [3, 3, 5, 4]) == [Run(3, 3, 2), Run(5, 5, 1), Run(3, 4, 1)]


def test_mask_is_aligned_to_the_last_positions():
    visible = ScoreRule(1.0, 2).visible(distances(2, 4, torch.device("cpu")))
    assert visible.int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]


class Cache:
    """Three sequences in a shuffled cache, and the queries of all their positions."""

    lengths = (70, 33, 5)

    def __init__(self, dtype=torch.float32):
        torch.manual_seed(3)
        slots = torch.randperm(200)
        self.slots = torch.zeros(3, max(self.lengths), dtype=torch.int64)
        for row, length in enumerate(self.lengths):
            self.slots[row, :length], slots = slots[:length], slots[length:]
        self.k, self.v = (torch.randn(200, 2, H).to(dtype) for _ in range(2))
        self.q = [torch.randn(length, 4, H).to(dtype) for length in self.lengths]

    def run(self, spans):
        """Attend from positions start .. stop - 1 of each (row, start, stop)."""
        layout = PagedLayout(
            tuple(stop - start for _, start, stop in spans),
            tuple(stop for _, _, stop in spans),
            self.slots[[row for row, _, _ in spans]],
            all(stop - start == 1 for _, start, stop in spans),
        )
        q = torch.cat([self.q[row][start:stop] for row, start, stop in spans])
        out = paged_attention(q, self.k, self.v, layout, ScoreRule(H**-0.5))
        return out.split(layout.query_lengths)


def test_paged_equals_packed_on_the_same_sequences():
    cache = Cache()
    k, v = (
        torch.cat([t[cache.slots[row, :n]] for row, n in enumerate(cache.lengths)])
        for t in (cache.k, cache.v)
    )
    expected = packed_attention(torch.cat(cache.q), k, v, cache.lengths, ScoreRule(H**-0.5))
    actual = torch.cat(cache.run([(row, 0, n) for row, n in enumerate(cache.lengths)]))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_gets_the_same_bits_alone_batched_and_in_any_chunk(dtype):
    cache = Cache(dtype)
    whole = cache.run([(0, 0, 70), (1, 0, 33), (2, 0, 5)])
    for chunk in (1, 7, 32):
        for row, length in enumerate(cache.lengths):
            parts = [
                cache.run([(row, start, min(start + chunk, length))])[0]
                for start in range(0, length, chunk)
            ]
            assert torch.equal(torch.cat(parts), whole[row])
    batched = cache.run([(2, 4, 5), (0, 69, 70), (1, 32, 33)])
    assert torch.equal(batched[1][0], whole[0][-1])
    assert torch.equal(batched[0][0], whole[2][-1])


def chunks_of(lengths, rng):
    """Cut every sequence into chunks of some size and deal them out to steps."""
    spans = []
    for row, length in enumerate(lengths):
        size = rng.choice((1, 3, 64, 1000))
        spans += [(row, at, min(at + size, length)) for at in range(0, length, size)]
    rng.shuffle(spans)
    while spans:
        size = rng.randint(1, 9)
        yield spans[:size]
        spans = spans[size:]


@needs_wide_registers
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(25))
def test_serving_gives_every_row_the_bits_of_training(seed, dtype):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    width, kv_heads = rng.choice(range(16, 129, 16)), rng.choice((1, 2, 4))
    lengths = [rng.randint(1, rng.choice((5, 70, 300))) for _ in range(rng.randint(1, 5))]
    window, num_tokens = rng.choice((None, None, 1, 7, 64, 130)), sum(lengths)
    counts = (kv_heads * rng.choice((1, 2, 3, 8)), kv_heads, kv_heads)
    q, k, v = (torch.randn(num_tokens, n, width).to(dtype) for n in counts)
    q *= rng.choice((1, 30))
    rule, whole = ScoreRule(width**-0.5, window), tuple(lengths)
    assert PACKED_ATTENTION.chosen(q, k, v, whole, whole, rule) == "native"
    trained = packed_attention(q, k, v, whole, rule)
    slots = torch.randperm(num_tokens + 50)[:num_tokens]
    cache = [torch.zeros(num_tokens + 50, kv_heads, width, dtype=dtype) for _ in range(2)]
    cache[0][slots], cache[1][slots] = k, v
    starts = [sum(lengths[:row]) for row in range(len(lengths))]
    served = torch.empty_like(trained)
    for spans in chunks_of(lengths, rng):
        slots_BS = torch.zeros(len(spans), max(lengths), dtype=torch.int64)
        for i, (row, _, _) in enumerate(spans):
            slots_BS[i, : lengths[row]] = slots[starts[row] :][: lengths[row]]
        queries = tuple(stop - start for _, start, stop in spans)
        contexts = tuple(stop for _, _, stop in spans)
        layout = PagedLayout(queries, contexts, slots_BS, max(queries) == 1)
        rows = torch.cat([torch.arange(a, b) + starts[row] for row, a, b in spans])
        served[rows] = paged_attention(q[rows], *cache, layout, rule)
    assert torch.equal(served, trained)


@needs_wide_registers
@pytest.mark.parametrize("lengths", [(300,), (130, 1), (20,) * 5])
def test_number_of_threads_does_not_change_training(lengths):
    results = []
    before = torch.get_num_threads()
    for num_threads in (1, 2, 5):
        torch.set_num_threads(num_threads)
        leaves = [t.requires_grad_() for t in random_heads(sum(lengths), kv_heads=1)]
        out = packed_attention(*leaves, lengths, ScoreRule(H**-0.5))
        results.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_padding_slots_are_not_read():
    cache = Cache()
    before = cache.run([(2, 4, 5), (0, 69, 70)])
    cache.slots[2, 5:] = int(cache.slots[0, 0])
    cache.k[cache.slots[0, 0]] *= 3
    after = cache.run([(2, 4, 5), (0, 69, 70)])
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_layout_tells_row_and_position_of_each_token():
    layout = PagedLayout((2, 1, 3), (5, 1, 3), torch.zeros(3, 5, dtype=torch.int64), False)
    assert layout.rows_T.tolist() == [0, 0, 1, 2, 2, 2]
    assert layout.positions_T.tolist() == [3, 4, 0, 0, 1, 2]
    assert layout.tokens_T.tolist() == [0, 1, 2, 3, 4, 5]
    assert layout.visible_BS(2).int().sum(-1).tolist() == [2, 1, 2]
