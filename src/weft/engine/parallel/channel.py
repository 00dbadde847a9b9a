"""Frames between rank 0 and one other rank, over a socket of the local host.

A connection carries a secret first, so that no other user of the machine can take a rank's place.
"""

from __future__ import annotations

import hmac
import json
import secrets
import select
import socket
import struct
import time
from enum import IntEnum
from typing import Any, NamedTuple

from weft.core.errors import WeftError
from weft.dist.private_group import LOCALHOST

_HEAD = struct.Struct("<BI")


class Kind(IntEnum):
    """What a frame says."""

    HELLO = 1  # rank and secret
    READY = 2  # weights are loaded
    PLAN = 3  # execute this
    DONE = 4  # executed; step and checksum of what was drawn
    FAILED = 5  # raised; the rank ends
    STOP = 6  # end in peace


class ChannelClosed(WeftError):
    """The other end is gone."""


class ChannelTimeout(WeftError):
    """The other end is silent."""


class Frame(NamedTuple):
    """A kind and what belongs to it."""

    kind: Kind
    payload: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """The payload of a frame that carries JSON."""
        return json.loads(self.payload)


class Channel:
    """One end of a connection. One thread sends, one receives."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Python's own time-outs would make the whole socket non-blocking, for all threads.
        connection.settimeout(None)
        self._socket = connection

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Send a frame.

        Raises:
            ChannelClosed: the other end is gone.
        """
        try:
            self._socket.sendall(_HEAD.pack(kind, len(payload)) + payload)
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def send_fields(self, kind: Kind, **fields: Any) -> None:
        """Send a frame that carries JSON."""
        self.send(kind, json.dumps(fields).encode())

    def receive(self, timeout_s: float | None = None) -> Frame:
        """Wait for the next frame; no time-out means for ever.

        Raises:
            ChannelClosed: the other end is gone.
            ChannelTimeout: nothing came in time.
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        kind, size = _HEAD.unpack(self._read(_HEAD.size, end_s))
        return Frame(Kind(kind), self._read(size, end_s))

    def is_closed(self) -> bool:
        """Return whether the other end is gone and nothing is left to read; waits for nothing."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _read(self, size: int, end_s: float | None) -> bytes:
        parts, missing = [], size
        while missing:
            try:
                if not self._is_readable(end_s):
                    raise ChannelTimeout("no answer in time")
                part = self._socket.recv(missing)
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            if not part:
                raise ChannelClosed("the connection was closed")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _is_readable(self, end_s: float | None) -> bool:
        if end_s is None:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(max(0.0, 1000.0 * (end_s - time.monotonic()))))


class Address(NamedTuple):
    """Where rank 0 listens, and the secret it expects."""

    port: int
    secret: str

    def connect(self, rank: int, timeout_s: float) -> Channel:
        """Connect a rank to rank 0.

        Raises:
            ChannelClosed: nobody listens there.
        """
        try:
            channel = Channel(socket.create_connection((LOCALHOST, self.port), timeout_s))
        except OSError as error:
            raise ChannelClosed(f"rank 0 does not listen on this machine: {error}") from error
        channel.send_fields(Kind.HELLO, rank=rank, secret=self.secret)
        return channel


class Listener:
    """Rank 0's end before the others are there."""

    def __init__(self) -> None:
        self._socket = socket.create_server((LOCALHOST, 0))
        self.address = Address(self._socket.getsockname()[1], secrets.token_hex(16))

    def accept(self, timeout_s: float) -> tuple[int, Channel] | None:
        """Return the next rank that connects; none if none did in time or it lacks the secret."""
        self._socket.settimeout(timeout_s)
        try:
            connection, _ = self._socket.accept()
        except TimeoutError:
            return None
        channel = Channel(connection)
        try:
            hello = channel.receive(timeout_s=5.0)
            if hello.kind is Kind.HELLO and hmac.compare_digest(
                str(hello.fields["secret"]), self.address.secret
            ):
                return int(hello.fields["rank"]), channel
        except (WeftError, ValueError, KeyError, TypeError):
            pass  # a stranger; the ranks come with the secret
        channel.close()
        return None

    def close(self) -> None:
        """Accept nobody any more."""
        self._socket.close()
