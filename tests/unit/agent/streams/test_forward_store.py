"""Forwards that are kept."""

from __future__ import annotations

from pathlib import Path

from warren.agent.streams.forward_store import FILE_NAME, ForwardStore
from warren.agent.streams.forward_text import parse_forward, parse_socks


def test_what_is_kept_is_there_again(tmp_path: Path) -> None:
    wishes = (
        parse_forward("8080", "db:80"),
        parse_forward("*:53", "names/udp"),
        parse_forward("overlay:80", "unix:/run/web.sock"),
        parse_forward("unix:/run/db.sock", "[fd00::1]:5432"),
        parse_socks("[::1]:1080"),
    )
    store = ForwardStore(tmp_path)
    assert store.load() == ((), "")
    store.save(wishes)
    assert ForwardStore(tmp_path).load() == (wishes, "")
    store.save(())
    assert store.load() == ((), "")


def test_a_damaged_file_is_put_aside_and_told(tmp_path: Path) -> None:
    store = ForwardStore(tmp_path)
    store.save((parse_forward("8080", "db:80"),))
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-1])
    wishes, trouble = store.load()
    assert wishes == ()
    assert "was damaged" in trouble
    assert store.load() == ((), "")


def test_a_file_of_something_else_is_put_aside(tmp_path: Path) -> None:
    from warren.agent import kept

    kept.write(tmp_path / FILE_NAME, b"\x91\xa1x")
    assert "cannot be used" in ForwardStore(tmp_path).load()[1]
