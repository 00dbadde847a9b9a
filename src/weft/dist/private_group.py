"""A group of processes that is nobody's default: any number of them live in one process.

``torch.distributed.init_process_group`` makes the one default group of a process, which belongs to
whoever trains in it. An engine spread over processes therefore talks to the backend directly.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from weft.core.errors import UnsupportedError, WeftError

LOCALHOST = "127.0.0.1"


class CollectiveError(WeftError):
    """A collective did not come to its end: another rank is gone, or too late."""


class PrivateGroup:
    """Collectives of ranks on one machine, over gloo on the CPU or NCCL on GPUs.

    Connections are bound to the local host. The constructor returns when all ranks are there.

    Args:
        store: Where the ranks meet, such as ``torch.distributed.FileStore``.
        rank: This process's number, from 0.
        size: How many processes there are.
        device_type: "cpu" or "cuda".
        timeout_s: A collective that takes longer fails.

    Raises:
        UnsupportedError: there is no backend for the device in this build of torch.
    """

    def __init__(
        self, store: dist.Store, rank: int, size: int, *, device_type: str, timeout_s: float
    ) -> None:
        self._rank, self._size = rank, size
        build = {"cpu": _gloo, "cuda": _nccl}.get(device_type)
        if build is None:
            raise UnsupportedError(
                f"processes cannot share work on {device_type!r}", fix="use cpu or cuda"
            )
        self._backend: Any = build(store, rank, size, timedelta(seconds=timeout_s))

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self._size

    @property
    def rank(self) -> int:
        """This rank's number, from 0."""
        return self._rank

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Replace ``tensor`` on every rank by its sum over ranks; returns it."""
        whole = tensor.contiguous()
        self._wait(lambda backend: backend.allreduce([whole]))
        return whole

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Return every rank's ``tensor`` along a new first axis, [size, ...]."""
        out = tensor.new_empty((self._size, *tensor.shape))
        part = tensor.contiguous()
        self._wait(lambda backend: backend.allgather([list(out.unbind(0))], [part]))
        return out

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Replace ``tensor`` on every rank by that of rank ``source``; returns it."""
        options = dist.BroadcastOptions()
        options.rootRank = source
        self._wait(lambda backend: backend.broadcast([tensor], options))
        return tensor

    def send(self, tensor: Tensor, target: int) -> None:
        """Send a contiguous tensor to one rank, which must ``receive`` it."""
        self._wait(lambda backend: backend.send([tensor.contiguous()], target, 0))

    def receive(self, tensor: Tensor, source: int) -> Tensor:
        """Fill ``tensor`` with what rank ``source`` sends; returns it."""
        self._wait(lambda backend: backend.recv([tensor], source, 0))
        return tensor

    def abort(self) -> None:
        """Let collectives that are under way fail; callable from any thread."""
        if (backend := self._backend) is not None:
            backend.abort()

    def close(self) -> None:
        """End connections and threads, and wait for both; idempotent. Nothing may be under way.

        Every rank has to do so before its Python ends. A backend's threads let go of a collective's
        tensors after its caller has gone on, which takes Python's lock; a thread that asks for it
        while Python ends is ended itself, in the middle of a destructor, and that aborts the
        process. The backend joins its threads when nobody holds it any more, not in ``shutdown``.
        """
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.shutdown()

    def _wait(self, start: Callable[[Any], Any]) -> None:
        if (backend := self._backend) is None:
            raise CollectiveError("the group is closed")
        try:
            start(backend).wait()
            return
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
        finally:
            del backend
        # Raised without its cause, whose traceback would keep the backend and its threads.
        raise CollectiveError(reason)


def _gloo(store: dist.Store, rank: int, size: int, timeout: timedelta) -> Any:
    options = dist.ProcessGroupGloo._Options()  # pyrefly: ignore[missing-attribute]
    options._timeout = timeout
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=LOCALHOST)]
    return dist.ProcessGroupGloo(store, rank, size, options)


def _nccl(store: dist.Store, rank: int, size: int, timeout: timedelta) -> Any:
    if not dist.is_nccl_available():
        raise UnsupportedError(
            "this build of torch has no NCCL", fix="install torch with CUDA, or use the CPU"
        )
    torch.cuda.set_device(rank % torch.cuda.device_count())
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    return dist.ProcessGroupNCCL(store, rank, size, options)
