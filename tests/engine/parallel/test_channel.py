"""Frames arrive whole, a closed end is noticed, and strangers are not let in."""

from __future__ import annotations

import socket
import threading

import pytest

from weft.engine.parallel.channel import (
    Address,
    ChannelClosed,
    ChannelTimeout,
    Kind,
    Listener,
)


@pytest.fixture
def pair():
    listener, ends = Listener(), []
    connect = threading.Thread(target=lambda: ends.append(listener.address.connect(3, 5.0)))
    connect.start()
    rank, ours = listener.accept(5.0)
    connect.join()
    assert rank == 3
    yield ours, ends[0]
    for end in (ours, ends[0], listener):
        end.close()


def test_frames_arrive_whole_and_in_order(pair):
    ours, theirs = pair
    large = bytes(range(256)) * 20_000
    sender = threading.Thread(target=ours.send, args=(Kind.PLAN, large))
    sender.start()
    assert theirs.receive(5.0) == (Kind.PLAN, large)
    sender.join()
    ours.send(Kind.STOP)
    theirs.send_fields(Kind.DONE, step=3, checksum=4)
    assert theirs.receive(5.0) == (Kind.STOP, b"")
    assert ours.receive(5.0).fields == {"step": 3, "checksum": 4}


def test_silence_ends_with_a_timeout(pair):
    with pytest.raises(ChannelTimeout):
        pair[0].receive(0.01)


def test_a_closed_end_is_noticed_when_everything_is_read(pair):
    ours, theirs = pair
    assert not ours.is_closed()
    theirs.send(Kind.READY)
    theirs.close()
    assert not ours.is_closed()
    assert ours.receive(5.0).kind is Kind.READY
    with pytest.raises(ChannelClosed):
        ours.receive(5.0)
    assert ours.is_closed()


def test_strangers_are_not_let_in():
    listener = Listener()
    port, secret = listener.address
    assert len(secret) == 32
    host = listener._socket.getsockname()[0]
    assert host == "127.0.0.1"
    wrong = Address(port, "0" * 32).connect(1, 5.0)
    assert listener.accept(5.0) is None
    with socket.create_connection((host, port)) as mute:
        mute.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        mute.shutdown(socket.SHUT_WR)
        assert listener.accept(5.0) is None
    assert listener.accept(0.01) is None
    wrong.close()
    listener.close()


def test_nobody_at_the_address_is_said():
    listener = Listener()
    listener.close()
    with pytest.raises(ChannelClosed, match="does not listen"):
        listener.address.connect(1, 1.0)
