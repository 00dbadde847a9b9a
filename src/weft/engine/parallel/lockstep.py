"""Collectives that exist only while all ranks are in the same step."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from torch import Tensor

from weft.core.errors import UnsupportedError
from weft.dist.private_group import CollectiveError, PrivateGroup


class Lockstep:
    """A group whose collectives are refused outside of a step.

    The ranks meet only in the plans of their engine. Whoever calls the module of one rank by itself
    would wait for the others until the time-out; this says so at once.
    """

    def __init__(self, group: PrivateGroup) -> None:
        self.group = group
        self._thread: int | None = None
        self._error: CollectiveError | None = None

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self.group.size

    @property
    def rank(self) -> int:
        """This rank's number, from 0."""
        return self.group.rank

    @contextlib.contextmanager
    def in_step(self) -> Iterator[None]:
        """Let this thread take part in collectives.

        Raises:
            CollectiveError: one failed, even if whoever called it has made do without.
        """
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None
        if self._error is not None:
            raise self._error

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Replace ``tensor`` on every rank by its sum over ranks; returns it."""
        return self._call(lambda: self.group.all_reduce(tensor))

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Return every rank's ``tensor`` along a new first axis, [size, ...]."""
        return self._call(lambda: self.group.all_gather(tensor))

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Replace ``tensor`` on every rank by that of rank ``source``; returns it."""
        return self._call(lambda: self.group.broadcast(tensor, source))

    def send(self, tensor: Tensor, target: int) -> None:
        """Send a contiguous tensor to one rank, which must ``receive`` it."""

        def send() -> Tensor:
            self.group.send(tensor, target)
            return tensor

        self._call(send)

    def receive(self, tensor: Tensor, source: int) -> Tensor:
        """Fill ``tensor`` with what rank ``source`` sends; returns it."""
        return self._call(lambda: self.group.receive(tensor, source))

    def close(self) -> None:
        """End the group's connections and threads."""
        self.group.close()

    def _call(self, collective: Callable[[], Tensor]) -> Tensor:
        if self._thread != threading.get_ident():
            raise UnsupportedError(
                f"this model is spread over {self.size} ranks, which compute together only in the "
                "steps of their engine",
                fix="generate with it; to score, embed or train, load the model on one rank",
            )
        if self._error is not None:
            raise self._error  # the ranks are out of step: nothing can be asked of them any more
        try:
            return collective()
        except CollectiveError as error:
            self._error = error
            raise
