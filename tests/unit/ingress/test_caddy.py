"""Keeping Caddy, where there is none: what is said then. With one, see the tests of interoperation."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from warren.errors import OperationFailed, Unreachable
from warren.ingress.caddy import Caddy, Settings, Site
from warren.ingress.process import CaddyProcess


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="caddy-") as made:
        yield Path(made)


def settings(directory: Path) -> Settings:
    return Settings(directory / "state", directory / "run")


def site(directory: Path) -> Site:
    return Site("shop", ("shop.example",), "internal", directory / "shop.sock")


def program(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A caddy of our own making, and nothing else but the shell's own commands."""
    programs = directory / "bin"
    programs.mkdir()
    path = programs / "caddy"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))


async def refused(caddy: Caddy, wanted: Site) -> str:
    with pytest.raises(OperationFailed) as error:
        await caddy.keep([wanted])
    await caddy.close()
    await caddy.wait_closed()
    return str(error.value)


def test_without_caddy_there_is_a_sentence_with_what_to_install(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(directory))
    said = asyncio.run(refused(Caddy(settings(directory), directory / "peers.sock"), site(directory)))
    assert "Caddy, which ends TLS and speaks HTTP here, is not installed" in said
    assert "apt install caddy" in said
    assert not (directory / "run" / "caddy").exists(), "nothing stays behind"


def test_without_sites_it_is_not_looked_for(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(directory))

    async def scene() -> None:
        caddy = Caddy(settings(directory), directory / "peers.sock")
        assert await caddy.keep([]) is None
        assert caddy.problems() == {}
        await caddy.close()

    asyncio.run(scene())
    assert not (directory / "run").exists()


def test_a_caddy_that_ends_at_once_is_quoted(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(directory, monkeypatch, "echo first; echo 'Error: no room for me' >&2; exit 1")
    said = asyncio.run(refused(Caddy(settings(directory), directory / "peers.sock"), site(directory)))
    assert said == "Caddy does not start: Error: no room for me; see whether `caddy run` works by hand"


def test_a_caddy_that_never_answers_is_ended(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warren.ingress.process.START_WITHIN_S", 0.2)
    program(directory, monkeypatch, f"echo $$ > {directory}/pid; while :; do read -r _ < {directory}/fifo; done")
    os.mkfifo(directory / "fifo")
    said = asyncio.run(refused(Caddy(settings(directory), directory / "peers.sock"), site(directory)))
    assert "did not start within" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int((directory / "pid").read_text()), 0)


def test_its_directories_are_its_users_alone(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, state = directory / "run" / "caddy", directory / "state" / "caddy"
    program(directory, monkeypatch, f"/usr/bin/stat -c %a {run} {run}/1 {state} > {directory}/modes; exit 1")
    run.mkdir(parents=True, mode=0o755)
    asyncio.run(refused(Caddy(settings(directory), directory / "peers.sock"), site(directory)))
    assert (directory / "modes").read_text().split() == ["700", "700", "700"]


def test_directories_that_cannot_be_made_are_told(directory: Path) -> None:
    (directory / "state").write_text("a file")
    said = asyncio.run(refused(Caddy(settings(directory), directory / "peers.sock"), site(directory)))
    assert "cannot be made" in said


def test_none_is_found_where_none_runs(directory: Path) -> None:
    with pytest.raises(Unreachable):
        CaddyProcess.attach(settings(directory))
