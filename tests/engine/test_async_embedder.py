"""Texts of many coroutines become vectors of one thread; only who is at fault fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.checkpoint.test_sentence import TEXTS, embedder
from weft.core.errors import QueueFullError, ResourceError
from weft.engine.async_embedder import AsyncEmbedder

IDS = [[1, 2, 3], [2], [3, 3, 3, 3]]


@pytest.fixture
def server() -> Iterator[AsyncEmbedder]:
    made = AsyncEmbedder(embedder(), tokens_per_batch=64)
    yield made
    made.shutdown()


class Gate:
    """Records the batches of an embedder and holds the first one back."""

    def __init__(self, server: AsyncEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[int] = []
        self.entered, self.opened = threading.Event(), threading.Event()
        compute = server.embedder.embed_tokens

        def embed_tokens(tokens, *, tokens_per_batch):
            self.batches.append(len(tokens))
            self.entered.set()
            assert self.opened.wait(20)
            if any(60 in ids for ids in tokens):
                raise RuntimeError("token 60 breaks it")
            return compute(tokens, tokens_per_batch=tokens_per_batch)

        monkeypatch.setattr(server.embedder, "embed_tokens", embed_tokens)


def test_vectors_are_those_of_the_library(server: AsyncEmbedder):
    made = server.embedder
    tokens = [made.encode(text) for text in TEXTS[:2]]
    vectors_BD = asyncio.run(server.embed_tokens(tokens))
    assert vectors_BD.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(vectors_BD), made.embed(TEXTS[:2]))


def test_requests_that_come_during_a_batch_make_the_next_one_together(
    server: AsyncEmbedder, monkeypatch
):
    gate = Gate(server, monkeypatch)

    async def ask() -> list[np.ndarray]:
        first = asyncio.create_task(server.embed_tokens(IDS))
        await asyncio.to_thread(gate.entered.wait, 20)
        others = [asyncio.create_task(server.embed_tokens([ids])) for ids in IDS]
        while server.num_waiting < 6:
            await asyncio.sleep(0.001)
        gate.opened.set()
        return await asyncio.gather(first, *others)

    together, *alone = asyncio.run(ask())
    assert gate.batches == [3, 3]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-6)
    assert server.num_waiting == 0


def test_a_batch_has_no_more_requests_than_its_tokens_allow(server: AsyncEmbedder, monkeypatch):
    gate = Gate(server, monkeypatch)

    async def ask() -> None:
        tasks = [asyncio.create_task(server.embed_tokens([[1]]))]
        await asyncio.to_thread(gate.entered.wait, 20)
        tasks += [asyncio.create_task(server.embed_tokens([[2] * 40])) for _ in range(4)]
        while server.num_waiting < 5:
            await asyncio.sleep(0.001)
        gate.opened.set()
        await asyncio.gather(*tasks)

    asyncio.run(ask())
    assert gate.batches == [1, 2, 2]


def test_only_the_request_that_fails_gets_the_error(server: AsyncEmbedder, monkeypatch):
    gate = Gate(server, monkeypatch)

    async def ask() -> list[object]:
        tasks = [asyncio.create_task(server.embed_tokens([[1]]))]
        await asyncio.to_thread(gate.entered.wait, 20)
        tasks += [asyncio.create_task(server.embed_tokens([[id]])) for id in (2, 60, 3)]
        while server.num_waiting < 4:
            await asyncio.sleep(0.001)
        gate.opened.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, broken, third = asyncio.run(ask())
    assert [vectors.shape for vectors in (first, second, third)] == [(1, 32)] * 3
    assert "token 60" in str(broken)
    assert server.healthy


def test_a_cancelled_request_is_not_computed(server: AsyncEmbedder, monkeypatch):
    gate = Gate(server, monkeypatch)

    async def ask() -> None:
        first = asyncio.create_task(server.embed_tokens([[1]]))
        await asyncio.to_thread(gate.entered.wait, 20)
        second = asyncio.create_task(server.embed_tokens([[2]]))
        while server.num_waiting < 2:
            await asyncio.sleep(0.001)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        gate.opened.set()
        await first

    asyncio.run(ask())
    server.shutdown()
    assert gate.batches == [1]
    assert server.num_waiting == 0


def test_a_full_queue_is_refused_but_never_a_first_request(monkeypatch):
    server = AsyncEmbedder(embedder(), max_waiting=2)
    gate = Gate(server, monkeypatch)

    async def ask() -> np.ndarray:
        first = asyncio.create_task(server.embed_tokens(IDS))
        await asyncio.to_thread(gate.entered.wait, 20)
        with pytest.raises(QueueFullError, match="3 texts are waiting, 2 may"):
            await server.embed_tokens([[1]])
        gate.opened.set()
        return await first

    assert len(asyncio.run(ask())) == 3
    server.shutdown()


def test_a_closed_embedder_says_so(server: AsyncEmbedder):
    server.shutdown()
    server.shutdown()
    assert not server.healthy
    with pytest.raises(ResourceError, match="closed"):
        asyncio.run(server.embed_tokens([[1]]))
