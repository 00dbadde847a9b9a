"""The same module through ``packed`` and ``paged`` gives the same numbers."""

from __future__ import annotations

import pytest
import torch

from weft.models.decoder import Decoder
from weft.nn.context import PagedBatch, StepContext, document_positions
from weft.nn.kv_cache import KVCache, bytes_per_block
from weft.ops import PagedLayout
from weft.spec import ModelShape

TOLERANCE = 1e-5
BLOCK_SIZE = 4


def build(family: str) -> Decoder:
    shape = ModelShape(family=family, dim=32, num_layers=2, num_heads=4, num_kv_heads=2)
    return Decoder(shape.build(50), seed=1)


def paged_step(
    model: Decoder, cache: KVCache, work: list[tuple[list[int], int, list[int]]]
) -> torch.Tensor:
    """Compute (tokens, start, blocks) of several sequences in one step."""
    slots = [[b * BLOCK_SIZE + i for b in blocks for i in range(BLOCK_SIZE)] for *_, blocks in work]
    contexts = [start + len(tokens) for tokens, start, _ in work]
    table = torch.zeros(len(work), max(contexts), dtype=torch.int64)
    for row, (slot, context) in enumerate(zip(slots, contexts, strict=True)):
        table[row, :context] = torch.tensor(slot[:context])
    positions = [p for tokens, start, _ in work for p in range(start, start + len(tokens))]
    writes = [
        slots[row][p]
        for row, (tokens, start, _) in enumerate(work)
        for p in range(start, start + len(tokens))
    ]
    layout = PagedLayout(
        tuple(len(w[0]) for w in work),
        tuple(contexts),
        table,
        decode=all(len(w[0]) == 1 for w in work),
    )
    batch = PagedBatch(torch.tensor(positions), torch.tensor(writes), layout)
    tokens_T = torch.tensor([t for tokens, _, _ in work for t in tokens])
    with torch.inference_mode():
        return model(tokens_T, StepContext.paged(cache, batch))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("chunk", [1, 3, 5, 11])
def test_chunked_prefill_and_decode_equal_the_packed_forward(family: str, chunk: int) -> None:
    model = build(family)
    generator = torch.Generator().manual_seed(chunk)
    documents = [torch.randint(50, (n,), generator=generator).tolist() for n in (11, 6)]
    flat = torch.tensor([t for document in documents for t in document])
    with torch.inference_mode():
        expected = model(flat, StepContext.packed([11, 6]))
    cache = KVCache(model.spec, num_blocks=8, block_size=BLOCK_SIZE)
    tables = [[5, 0, 3], [7, 2]]
    got: list[list[torch.Tensor]] = [[], []]
    done = [0, 0]
    while any(done[i] < len(documents[i]) for i in (0, 1)):
        live = [i for i in (0, 1) if done[i] < len(documents[i])]
        work = [(documents[i][done[i] : done[i] + chunk], done[i], tables[i]) for i in live]
        hidden = paged_step(model, cache, work).split([len(w[0]) for w in work])
        for i, piece in zip(live, hidden, strict=True):
            got[i].append(piece)
            done[i] += len(piece)
    actual = torch.cat([*got[0], *got[1]])
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


def test_documents_never_see_each_other() -> None:
    model = build("llama")
    first, second, other = [1, 2, 3], [4, 5, 6, 7], [9, 8, 7]
    with torch.inference_mode():
        a = model(torch.tensor(first + second), StepContext.packed([3, 4]))[3:]
        b = model(torch.tensor(other + second), StepContext.packed([3, 4]))[3:]
        alone = model(torch.tensor(second), StepContext.packed([4]))
    torch.testing.assert_close(a, b, atol=0, rtol=0)
    torch.testing.assert_close(a, alone, atol=TOLERANCE, rtol=0)


def test_a_token_does_not_see_the_future() -> None:
    model = build("qwen3")
    with torch.inference_mode():
        short = model(torch.tensor([1, 2, 3]), StepContext.packed([3]))
        long = model(torch.tensor([1, 2, 3, 4, 5]), StepContext.packed([5]))[:3]
    torch.testing.assert_close(short, long, atol=TOLERANCE, rtol=0)


def test_positions_restart_at_each_document() -> None:
    assert document_positions([3, 1, 2]).tolist() == [0, 1, 2, 0, 0, 1]


def test_cache_size_is_predicted() -> None:
    spec = build("llama").spec
    cache = KVCache(spec, num_blocks=6, block_size=BLOCK_SIZE, dtype=torch.bfloat16)
    assert cache.size_bytes == 6 * bytes_per_block(spec, BLOCK_SIZE, torch.bfloat16)
