"""Run a model step by step over a cache in scattered blocks, as the engine would."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from weft.nn.context import PagedBatch, StepContext
from weft.nn.kv_cache import KVCache
from weft.ops import PagedLayout
from weft.spec import ModelSpec

BLOCK_SIZE = 4

Work = tuple[Sequence[int], int, Sequence[int], int]
"""Tokens, start position, block table and state slot of one sequence in one step."""


def paged_step(model: nn.Module, cache: KVCache, work: Sequence[Work]) -> Tensor:
    """Compute several sequences in one step; returns the hidden states, [T, D]."""
    slots = [
        [block * BLOCK_SIZE + offset for block in blocks for offset in range(BLOCK_SIZE)]
        for _, _, blocks, _ in work
    ]
    contexts = [start + len(tokens) for tokens, start, _, _ in work]
    table_BS = torch.zeros(len(work), max(contexts), dtype=torch.int64)
    for row, context in enumerate(contexts):
        table_BS[row, :context] = torch.tensor(slots[row][:context])
    places = [
        (row, position)
        for row, (tokens, start, _, _) in enumerate(work)
        for position in range(start, start + len(tokens))
    ]
    batch = PagedBatch(
        positions_T=torch.tensor([position for _, position in places]),
        slots_T=torch.tensor([slots[row][position] for row, position in places]),
        layout=PagedLayout(
            query_lengths=tuple(len(tokens) for tokens, _, _, _ in work),
            context_lengths=tuple(contexts),
            slots_BS=table_BS,
            decode=all(len(tokens) == 1 for tokens, _, _, _ in work),
        ),
        state_slots_B=torch.tensor([state for _, _, _, state in work]),
    )
    tokens_T = torch.tensor([token for tokens, _, _, _ in work for token in tokens])
    with torch.inference_mode():
        return model(tokens_T, StepContext.paged(cache, batch))


def chunked(
    model: nn.Module,
    documents: Sequence[Sequence[int]],
    chunk: int,
    codes: torch.dtype | None = None,
) -> list[Tensor]:
    """Run documents side by side in chunks of ``chunk`` tokens; returns each one's hidden states.

    Every document's last two tokens come one by one, as in decoding; block tables and state slots
    are scattered, and the cache starts full of other sequences' leftovers.
    """
    spec: ModelSpec = model.spec
    num_blocks = [-(-len(document) // BLOCK_SIZE) for document in documents]
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(sum(num_blocks), generator=generator).tolist()
    tables = [[order.pop() for _ in range(count)] for count in num_blocks]
    cache = KVCache(
        spec,
        num_blocks=sum(num_blocks),
        block_size=BLOCK_SIZE,
        num_sequences=len(documents) + 2,
        dtype=model.embed.weight.dtype,
        codes=codes,
    )
    for layer in (*cache.tokens, *cache.states):
        for stored in layer.values():
            left_T = torch.randn(stored.shape, generator=generator)
            # Negative int8 could be the codes of NaN, which no request leaves behind.
            stored.copy_(left_T.abs() if stored.dtype == torch.int8 else left_T)
    done = [0] * len(documents)
    outputs: list[list[Tensor]] = [[] for _ in documents]
    while any(count < len(document) for count, document in zip(done, documents, strict=True)):
        work, rows = [], []
        for row, document in enumerate(documents):
            left = len(document) - done[row]
            if left == 0:
                continue
            size = 1 if left <= 2 else min(chunk, left - 2)
            work.append((document[done[row] : done[row] + size], done[row], tables[row], row + 2))
            rows.append((row, size))
        hidden_TD = paged_step(model, cache, work)
        for (row, size), part in zip(rows, hidden_TD.split([s for _, s in rows]), strict=True):
            outputs[row].append(part)
            done[row] += size
    return [torch.cat(parts) for parts in outputs]


def assert_packed_equals_paged(
    model: nn.Module, *, vocab_size: int, chunks: Sequence[int] = (1, 3, 7), atol: float = 1e-5
) -> None:
    """Check that training's and the engine's contexts give the same hidden states."""
    generator = torch.Generator().manual_seed(5)
    lengths = (19, 6, 11)
    documents = [torch.randint(vocab_size, (n,), generator=generator).tolist() for n in lengths]
    flat_T = torch.tensor([token for document in documents for token in document])
    context = StepContext.packed(lengths, keep_keys=model.spec.kv_sources)
    with torch.inference_mode():
        expected = model(flat_T, context).split(lengths)
    for chunk in chunks:
        for actual, reference in zip(chunked(model, documents, chunk), expected, strict=True):
            torch.testing.assert_close(actual, reference, atol=atol, rtol=1e-5)
