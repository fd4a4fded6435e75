"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import os
import socket

import pytest

from warren.linux.peers import is_trusted, peer_of


def test_the_other_end_is_known_by_process_and_user() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        assert peer_of(ours) == (os.getpid(), os.geteuid())


def test_this_user_and_root_are_trusted_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        user = os.geteuid()
        assert is_trusted(ours)
        for other in (user + 1, 65534):
            monkeypatch.setattr("warren.linux.peers.peer_of", lambda _, uid=other: _peer(uid))
            assert not is_trusted(ours)
        monkeypatch.setattr("warren.linux.peers.peer_of", lambda _: _peer(0))
        assert is_trusted(ours)


def _peer(uid: int) -> object:
    from warren.linux.peers import Peer

    return Peer(1, uid)
