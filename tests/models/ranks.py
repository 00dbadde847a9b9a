"""Ranks of a group as threads of one process, for tests of models that are spread over ranks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

ResultT = TypeVar("ResultT")


class ThreadGroup:
    """One rank's view of a group whose ranks are threads; counts what it is asked for."""

    def __init__(self, rank: int, size: int, board: list, barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, size
        self.num_sums = self.num_gathers = 0
        self._board, self._barrier = board, barrier

    def all_reduce(self, tensor: Tensor) -> Tensor:
        self.num_sums += 1
        return torch.stack(self._exchange(tensor)).sum(0).to(tensor.dtype)

    def all_gather(self, tensor: Tensor) -> Tensor:
        self.num_gathers += 1
        return torch.stack(self._exchange(tensor))

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        return tensor.copy_(self._exchange(tensor)[source])

    def send(self, tensor: Tensor, target: int) -> None:
        self._board[self.size + target].put(tensor.clone())

    def receive(self, tensor: Tensor, source: int) -> Tensor:
        return tensor.copy_(self._board[self.size + self.rank].get(timeout=20))

    def _exchange(self, tensor: Tensor) -> list[Tensor]:
        self._board[self.rank] = tensor.clone()
        self._barrier.wait(20)
        found = list(self._board[: self.size])
        self._barrier.wait(20)
        return found


def on_ranks(size: int, work: Callable[[ThreadGroup], ResultT]) -> list[ResultT]:
    """Call ``work`` once per rank, at the same time; a failure of any rank is raised here."""
    import queue

    barrier = threading.Barrier(size)
    board: list = [None] * size + [queue.SimpleQueue() for _ in range(size)]

    def run(rank: int) -> ResultT:
        try:
            with torch.no_grad():
                return work(ThreadGroup(rank, size, board, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, rank) for rank in range(size)]
        errors = [error for future in futures if (error := future.exception()) is not None]
        # Others that waited for the one that failed only say that it is gone.
        first = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
        if errors:
            raise (first or errors)[0]
        return [future.result() for future in futures]
