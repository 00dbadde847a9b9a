"""Engines on several ranks: as threads of this process for quick tests, or as real processes."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Iterator

import torch

from tests.engine.support import tokenizer
from tests.models.ranks import ThreadGroup
from weft.dist.private_group import CollectiveError
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.parallel.channel import Channel, Kind
from weft.engine.parallel.follow import Follower
from weft.engine.parallel.lockstep import Lockstep
from weft.engine.parallel.ranks import Ranks
from weft.models.decoder import Decoder
from weft.models.sharded import ShardedDecoder, load_whole
from weft.models.sharding import plan_sharding
from weft.models.staged import StagedDecoder, plan_stages
from weft.sched.loop import VirtualClock


class BreakableGroup(ThreadGroup):
    """A thread's view of a group that breaks as one of processes does."""

    def abort(self) -> None:
        self._barrier.abort()

    def close(self) -> None:
        return

    def _exchange(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        try:
            return super()._exchange(tensor)
        except threading.BrokenBarrierError:
            raise CollectiveError("the connection was closed by a peer") from None


@contextlib.contextmanager
def threaded_core(
    decoder: Decoder,
    config: EngineConfig,
    size: int = 2,
    *,
    expert_split: str = "width",
    staged: bool = False,
    spoil=None,
    timeout_s: float = 20.0,
) -> Iterator[EngineCore]:
    """Yield rank 0's core; the other ranks are threads.

    ``spoil(core, rank)`` may change a follower's core before it serves.
    """
    barrier = threading.Barrier(size)
    board: list = [None] * size + [queue.SimpleQueue() for _ in range(size)]

    def part(rank: int) -> tuple[Decoder, Lockstep]:
        group = Lockstep(BreakableGroup(rank, size, board, barrier))
        if staged:
            return stage(decoder, group), group
        plan = plan_sharding(decoder.spec, size, expert_split=expert_split)
        model = ShardedDecoder(plan, group, dtype=decoder.dtype).to_empty(device="cpu").eval()
        load_whole(model, decoder.state_dict())
        return model, group

    def serve(rank: int, connection: socket.socket) -> None:
        model, group = part(rank)
        core = EngineCore(model, tokenizer(), config)
        if spoil is not None:
            spoil(core, rank)
        channel = Channel(connection)
        try:
            Follower(core, channel, group).serve()
        except Exception:
            barrier.abort()  # what the end of a process does to its connections
        finally:
            channel.close()
            followers[rank] = core

    followers: dict[int, EngineCore] = {}
    channels, threads = {}, []
    for rank in range(1, size):
        ours, theirs = _socket_pair()
        channels[rank] = Channel(ours)
        threads.append(threading.Thread(target=serve, args=(rank, theirs)))
        threads[-1].start()
    for channel in channels.values():
        assert channel.receive(20).kind is Kind.READY
    model, group = part(0)
    ranks = Ranks(channels, {}, group, timeout_s)
    core = EngineCore(model, tokenizer(), config, clock=VirtualClock(), ranks=ranks)
    try:
        yield core
    finally:
        core.close()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        if core.broken is None:
            assert not any(len(each.runner.table) for each in followers.values())
            assert not any(len(each.runner.prompts) for each in followers.values())


def stage(decoder: Decoder, group) -> StagedDecoder:
    """Return a rank's stage of a model, with its weights."""
    plan = plan_stages(decoder.spec, group.size)[group.rank]
    model = StagedDecoder(plan, group, dtype=decoder.dtype).to_empty(device="cpu").eval()
    named = ((plan.local_name(name), value) for name, value in decoder.state_dict().items())
    model.load_state_dict({name: value for name, value in named if name is not None})
    return model


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    return ours, theirs
